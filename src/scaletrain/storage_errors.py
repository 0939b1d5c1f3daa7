"""What a failure of storage means: third-party errors become ours, with the URL, the likely cause and what to do.

Libraries are recognised by the names of their exceptions, so that none of them is imported here.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from scaletrain.errors import AccessError, NotFoundError, ScaletrainError, StorageError

_NO_CREDENTIALS = {
    "botocore.exceptions.NoCredentialsError",
    "botocore.exceptions.PartialCredentialsError",
    "botocore.exceptions.CredentialRetrievalError",
    "botocore.exceptions.ProfileNotFound",
    "botocore.exceptions.SSOTokenLoadError",
    "botocore.exceptions.TokenRetrievalError",
    "botocore.exceptions.UnauthorizedSSOTokenError",
    "google.auth.exceptions.DefaultCredentialsError",
    "google.auth.exceptions.RefreshError",
}
_NO_ANSWER = {
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "aiohttp.client_exceptions.ClientError",
    "requests.exceptions.RequestException",
    "google.auth.exceptions.TransportError",
    "builtins.TimeoutError",
    "builtins.ConnectionError",
}
_LOG_IN = {
    "s3": "run `aws configure` or `aws sso login`, set AWS_PROFILE, or give this machine a role",
    "gs": "run `gcloud auth application-default login`, or give this machine a service account",
}
_BAD_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "NotSignedUp"}
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def errors_of(url: str) -> Iterator[None]:
    """Raise what goes wrong inside as NotFoundError, AccessError or StorageError; bugs of our own pass unchanged."""
    try:
        yield
    except ScaletrainError:
        raise
    except Exception as error:
        translated = _translate(url, error)
        if translated is None:
            raise
        raise translated from error


def service_code(error: BaseException) -> str:
    """Return the object store's own code of a failure, as NoSuchBucket; "" where it gave none."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def without_password(url: str) -> str:
    """Return a URL as it may be shown: user and password are left out."""
    return re.sub(r"://[^/@]*@", "://", url)


def _translate(url: str, error: Exception) -> StorageError | None:
    shown = without_password(url)
    protocol, _, rest = url.partition("://") if "://" in url else ("file", "", url)
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    code = service_code(error)
    reason = code or type(error).__name__
    status = getattr(error, "code", None)  # gcsfs's HttpError

    if names & _NO_CREDENTIALS or (status == 401 and protocol in _LOG_IN):
        return AccessError(f"{shown}: no usable credentials ({reason}); {_LOG_IN.get(protocol, 'log in first')}")
    if code in _BAD_CREDENTIALS:
        return AccessError(f"{shown}: the credentials were refused ({code}); {_LOG_IN.get(protocol, 'log in again')}")
    if code == "RequestTimeTooSkewed":
        return AccessError(f"{shown}: refused because this machine's clock is wrong ({code}); set the clock")
    if code in _OTHER_REGION:
        return StorageError(f"{shown}: the bucket is in another region ({code}); set AWS_DEFAULT_REGION to it")
    if code == "NoSuchBucket":
        bucket = rest.partition("/")[0]
        return NotFoundError(f"{shown}: there is no bucket {bucket!r}; check the name, or create it")
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{shown}: not found; check the name")
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden:") or status == 403:
        return AccessError(f"{shown}: {_permission_advice(protocol, reason)}")
    if isinstance(error, IsADirectoryError):
        return NotFoundError(f"{shown}: is a folder where a file was expected; name a file")
    if "botocore.exceptions.ParamValidationError" in names:
        return NotFoundError(f"{shown}: is not the URL of an object; write {protocol}://bucket/folder/name")
    if names & _NO_ANSWER:
        return StorageError(f"{shown}: no answer ({reason}); check the network, the proxy and the endpoint's URL")
    if isinstance(error, OSError):
        return StorageError(f"{shown}: {_system_advice(error, reason)}")
    if names & {"botocore.exceptions.BotoCoreError", "gcsfs.retry.HttpError"}:
        return StorageError(f"{shown}: {reason}: {error}")
    return None


def _permission_advice(protocol: str, reason: str) -> str:
    if protocol == "s3":
        needed = "s3:GetObject, s3:PutObject, s3:DeleteObject on its objects and s3:ListBucket on the bucket"
        return f"access denied ({reason}); the identity in use needs {needed}"
    if protocol in ("gs", "gcs"):
        return "access denied; the identity in use needs the role Storage Object Admin on the bucket"
    return f"permission denied ({reason}); check the owner and mode of the file and of its folder"


def _system_advice(error: OSError, reason: str) -> str:
    if error.errno in _FULL:
        return "the disk of this machine is full; free some space, or use a place with more"
    if error.errno == errno.EROFS:
        return "the file system is read-only; set storage.root to a place that can be written"
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return "a part of the path is a file, not a folder; choose another path"
    if reason in ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"):
        return f"the object store is overloaded ({reason}); try again, with fewer workers if it stays so"
    return f"{reason}: {error.strerror or error}"

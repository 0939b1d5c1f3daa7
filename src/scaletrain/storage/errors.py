"""What a failure of storage means: third-party errors become ours, with the URL, the likely cause and what to do.

Libraries are recognised by the names of their exceptions, so that none of them is imported here.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    "requests.exceptions.RequestException",
    "urllib3.exceptions.HTTPError",
    "google.auth.exceptions.TransportError",
    "builtins.TimeoutError",
    "builtins.ConnectionError",
}
_GARBLED_ANSWER = {
    "botocore.parsers.ResponseParserError",
    "botocore.exceptions.FlexibleChecksumError",
    "botocore.exceptions.IncompleteReadError",
    "google.cloud.storage.exceptions.DataCorruption",
}
_OTHER = {
    "botocore.exceptions.BotoCoreError",
    "botocore.exceptions.ClientError",
    "google.api_core.exceptions.GoogleAPIError",
    "google.auth.exceptions.GoogleAuthError",
}
_LOG_IN = {
    "s3": "run `aws configure` or `aws sso login`, set AWS_PROFILE, or give this machine a role",
    "gs": "run `gcloud auth application-default login`, or give this machine a service account",
}
_BAD_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "NotSignedUp"}
_EXPIRED_CREDENTIALS = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_BUSY_STATUS = {408, 429, 500, 502, 503, 504}
_BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "TooManyRequests"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted"}  # somebody else was changing the same object
_GARBLED = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}


class IncompleteAnswerError(OSError):
    """A store sent fewer or more bytes than were asked for."""

    def __init__(self, got_bytes: int, expected_bytes: int) -> None:
        super().__init__(got_bytes, expected_bytes)
        self.text = f"the answer had {got_bytes:,} bytes where {expected_bytes:,} were due"


class ReplacedError(OSError):
    """The version of an object that was being read is there no more."""


class BucketMissingError(FileNotFoundError):
    """A store told that there is no such bucket."""


class BadNameError(OSError):
    """No bucket or object can have this name."""


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
    return str(_response(error).get("Error", {}).get("Code", ""))


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may succeed when it is sent again."""
    if isinstance(error, IncompleteAnswerError) or _names(error) & (_NO_ANSWER | _GARBLED_ANSWER):
        return True
    return _status(error) in _BUSY_STATUS or service_code(error) in _BUSY | _CONFLICT | _GARBLED


def without_password(url: str) -> str:
    """Return a URL as it may be shown: user and password are left out."""
    return re.sub(r"://[^/@]*@", "://", url)


def _translate(url: str, error: Exception) -> StorageError | None:
    shown = without_password(url)
    protocol, _, rest = url.partition("://") if "://" in url else ("file", "", url)
    names = _names(error)
    code = service_code(error)
    status = _status(error)
    reason = code or type(error).__name__

    if names & _NO_CREDENTIALS or (status == 401 and protocol in _LOG_IN):
        return AccessError(f"{shown}: no usable credentials ({reason}); {_LOG_IN.get(protocol, 'log in first')}")
    if code in _EXPIRED_CREDENTIALS:
        return AccessError(f"{shown}: the credentials have expired ({code}); {_LOG_IN.get(protocol, 'log in again')}")
    if code in _BAD_CREDENTIALS:
        return AccessError(f"{shown}: the credentials were refused ({code}); {_LOG_IN.get(protocol, 'log in again')}")
    if code == "RequestTimeTooSkewed":
        return AccessError(f"{shown}: refused because this machine's clock is wrong ({code}); set the clock")
    if code in _OTHER_REGION:
        return StorageError(f"{shown}: {_region_advice(error, code)}")
    if code == "NoSuchBucket" or isinstance(error, BucketMissingError):
        bucket = rest.partition("/")[0]
        return NotFoundError(f"{shown}: there is no bucket {bucket!r}; check the name, or create it")
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{shown}: not found; check the name")
    if isinstance(error, PermissionError) or code == "AccessDenied" or status == 403:
        return AccessError(f"{shown}: {_permission_advice(protocol, reason)}")
    if isinstance(error, IsADirectoryError):
        return NotFoundError(f"{shown}: is a folder where a file was expected; name a file")
    if isinstance(error, BadNameError) or "botocore.exceptions.ParamValidationError" in names:
        return NotFoundError(f"{shown}: is not the URL of an object; write {protocol}://bucket/folder/name")
    if names & _NO_ANSWER:
        return StorageError(f"{shown}: no answer ({reason}); check the network, the proxy and the endpoint's URL")
    if isinstance(error, IncompleteAnswerError):
        return StorageError(f"{shown}: {error.text}, again and again; check the proxy and the endpoint's URL")
    if names & _GARBLED_ANSWER or code in _GARBLED:
        return StorageError(
            f"{shown}: bytes were lost or changed on the way, again and again ({reason}); check the proxy"
        )
    if status in _BUSY_STATUS or code in _BUSY:
        return StorageError(
            f"{shown}: the object store is overloaded ({code or status}); try again, with fewer workers if it stays so"
        )
    if code in _CONFLICT:
        return StorageError(f"{shown}: others kept creating the same object ({code}); try again")
    if isinstance(error, ReplacedError):
        return StorageError(f"{shown}: was replaced while it was read; read it again")
    if isinstance(error, OSError):
        return StorageError(f"{shown}: {_system_advice(error, reason)}")
    if names & _OTHER:
        return StorageError(f"{shown}: {reason}: {error}")
    return None


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of a failure, of Google's errors or of botocore's."""
    code = getattr(error, "code", None)
    if code is None:
        code = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(code) if str(code).isdigit() else None


def _response(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _region_advice(error: Exception, code: str) -> str:
    response = _response(error)
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or response.get("Error", {}).get("Region")
    if region:
        return f"the bucket is in the region {region} ({code}); set AWS_DEFAULT_REGION={region}"
    return f"the bucket is in another region ({code}); set AWS_DEFAULT_REGION to it"


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
    return f"{reason}: {error.strerror or error}"

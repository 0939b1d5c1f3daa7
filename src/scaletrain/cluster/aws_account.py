"""The AWS account that a command talks to: its clients, and the one place where AWS's errors become ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from scaletrain.errors import AccessError, ClusterError, ConfigError, ScaletrainError

TAG = "scaletrain:cluster"  # on everything that scaletrain makes; the value is the cluster's name

_CREDENTIALS_PAGE = "https://console.aws.amazon.com/iam/home#/security_credentials"
_LOG_IN = "run `aws sso login` or `aws configure`, or set AWS_PROFILE"
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_REFUSED = {
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}


@dataclass(frozen=True)
class Account:
    """An account in one region, seen by the caller's identity; `partition` is aws, or aws-cn and its like."""

    session: Any = field(repr=False)
    region: str
    account_id: str
    identity: str
    partition: str
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def described(self) -> str:
        """Whose account this is, as a user reads it."""
        return f"AWS account {self.account_id} in {self.region}, as {self.identity}"

    def client(self, service: str, *, region: str | None = None, attempts: int = 4) -> Any:
        """Return the one client of a service, which gives up on a dead network within seconds."""
        from botocore.config import Config

        key = (service, region or self.region)
        if key not in self._clients:
            options = Config(
                retries={"mode": "standard", "max_attempts": attempts}, connect_timeout=10, read_timeout=30
            )
            self._clients[key] = self.session.client(service, region_name=key[1], config=options)
        return self._clients[key]


def connect(region: str) -> Account:
    """Return the account that the caller's credentials belong to; raises AccessError that says how to mend them."""
    import boto3
    from botocore.config import Config

    with aws_errors("asking AWS who you are"):
        session = boto3.Session(region_name=region)
        if session.get_credentials() is None:
            raise AccessError(f"no AWS credentials on this machine; {_LOG_IN}. New keys: {_CREDENTIALS_PAGE}")
        options = Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=10, read_timeout=30)
        found = session.client("sts", region_name=region, config=options).get_caller_identity()
    return Account(session, region, found["Account"], found["Arn"], found["Arn"].split(":")[1])


def own_region() -> str:
    """Return the region of the caller's profile."""
    import boto3

    region = boto3.Session().region_name
    if region is None:
        raise ConfigError("no region; give --region us-east-1 or set AWS_DEFAULT_REGION")
    return str(region)


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Raise what botocore raises inside as AccessError, ConfigError or ClusterError that begins with `doing`."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ScaletrainError:
        raise
    except ClientError as error:
        raise _translate_answer(doing, error) from error
    except BotoCoreError as error:
        raise _translate_failure(doing, error) from error


def error_code(error: BaseException) -> str:
    """Return AWS's own code of a failure, as NoSuchEntity; "" where it gave none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def tags_of(cluster: str) -> list[dict[str, str]]:
    """Return the tags that mark a resource as made for a cluster."""
    return [{"Key": TAG, "Value": cluster}]


def has_tag(tags: list[dict[str, str]] | None, cluster: str) -> bool:
    """Say whether a resource's tags mark it as made for a cluster."""
    return any(tag["Key"] == TAG and tag["Value"] == cluster for tag in tags or ())


def _translate_answer(doing: str, error: Any) -> ScaletrainError:
    code = error_code(error)
    operation = error.operation_name
    message = str(error.response.get("Error", {}).get("Message", "")).strip()
    if code in _EXPIRED:
        return AccessError(f"{doing}: your AWS session has expired ({code}); {_LOG_IN}")
    if code in _REFUSED:
        return AccessError(
            f"{doing}: AWS refused your keys ({code}): wrong, deleted or of another account; {_LOG_IN}. "
            f"Your keys: {_CREDENTIALS_PAGE}"
        )
    if code == "RequestTimeTooSkewed":
        return AccessError(f"{doing}: refused because this machine's clock is wrong ({code}); set the clock")
    if code in _DENIED:
        return AccessError(
            f"{doing}: you are not allowed to call {operation} ({code}); ask the account's administrator for that "
            "right, or use another profile: https://console.aws.amazon.com/iam/home#/home"
        )
    if code == "OptInRequired":
        return AccessError(
            f"{doing}: this account or region is not switched on ({code}); see "
            "https://console.aws.amazon.com/billing/home#/account"
        )
    if code == "DependencyViolation":
        return ClusterError(f"{doing}: still in use ({message}); run `ray down`, wait a minute, and try again")
    return ClusterError(f"{doing}: AWS answered {operation} with {code}: {message}")


def _translate_failure(doing: str, error: Any) -> ScaletrainError:
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"):
        return AccessError(f"{doing}: no usable AWS credentials ({error}); {_LOG_IN}")
    if name in ("SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOError"):
        return AccessError(f"{doing}: you are not logged in ({error}); run `aws sso login`")
    if name == "InvalidRegionError":
        return ConfigError(f"{doing}: {error}; give a region as us-east-1")
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyConnectionError"):
        return ClusterError(f"{doing}: no answer ({error}); check the region's name, the network and the proxy")
    return ClusterError(f"{doing}: {name}: {error}")

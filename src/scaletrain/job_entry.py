"""What a submitted job runs on the cluster: `python -m scaletrain.job_entry [OPTIONS] -- COMMAND ...`.

It refuses another version than the submitter's, resolves secrets that are named by reference into this process's
environment, and then is the `scaletrain` command itself.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from scaletrain import __version__
from scaletrain.errors import AccessError, ConfigError, NotFoundError, ScaletrainError


def main(arguments: Sequence[str]) -> None:
    """Prepare this process and run the command behind `--`; ends the process with the command's exit code."""
    parser = argparse.ArgumentParser(prog="scaletrain.job_entry")
    parser.add_argument("--version", help="the submitter's version, where it did not send its source")
    parser.add_argument(
        "--secret", action="append", default=[], help="NAME=ssm:PARAMETER, secretsmanager:SECRET or gcp:SECRET"
    )
    parser.add_argument("--storage", nargs=2, metavar=("ROOT", "OPTIONS"), help="the storage root and its options")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        check_version(options.version)
        for reference in options.secret:
            name, _, place = reference.partition("=")
            os.environ[name] = read_secret(place)  # not part of a runtime_env: workers and logs do not see it
        if options.storage:
            import orjson

            from scaletrain import storage

            storage.configure(options.storage[0], orjson.loads(options.storage[1]))
    except ScaletrainError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None

    from scaletrain.cli import app

    app([each for each in options.command if each != "--"], prog_name="scaletrain")


def check_version(submitted: str | None) -> None:
    """Raise ConfigError unless the submitter's scaletrain is this one; None: its source came along."""
    if submitted is not None and submitted != __version__:
        raise ConfigError(
            f"scaletrain {submitted} submitted this job, the cluster has {__version__}; install the same version on "
            f"both: pip install scaletrain=={__version__} here, or change setup_commands and run `ray up` again"
        )


def read_secret(place: str) -> str:
    """Return a secret of AWS's parameter store (ssm:NAME) or Secrets Manager (secretsmanager:NAME), or Google's (gcp:).

    The machine's role must allow it. Raises AccessError or NotFoundError that name the place.
    """
    service, _, name = place.partition(":")
    return _read_google_secret(name) if service == "gcp" else _read_aws_secret(place)


def _read_aws_secret(place: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    service, _, name = place.partition(":")
    try:
        if service == "ssm":
            found = boto3.client("ssm", region_name=_region()).get_parameter(Name=name, WithDecryption=True)
            return str(found["Parameter"]["Value"])
        found = boto3.client("secretsmanager", region_name=_region()).get_secret_value(SecretId=name)
        return str(found["SecretString"])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("ParameterNotFound", "ResourceNotFoundException"):
            raise NotFoundError(f"{place}: there is no such secret in this region; check its name") from error
        raise AccessError(
            f"{place}: the head may not read it ({code}); its role needs ssm:GetParameter or "
            "secretsmanager:GetSecretValue for this name"
        ) from error
    except BotoCoreError as error:
        raise AccessError(f"{place}: cannot be read ({error}); does this machine have a role and a region?") from error


def _read_google_secret(name: str) -> str:
    """Return the newest version of a secret of this machine's project; `init` allows those named scaletrain-..."""
    import base64

    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession
    from requests.exceptions import RequestException

    try:
        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        url = f"https://secretmanager.googleapis.com/v1/projects/{project}/secrets/{name}/versions/latest:access"
        answer = AuthorizedSession(credentials).get(url, timeout=30)
    except (GoogleAuthError, RequestException) as error:
        raise AccessError(f"gcp:{name}: cannot be read ({error}); has this machine a service account?") from error
    if answer.status_code == 404:
        raise NotFoundError(f"gcp:{name}: there is no such secret in project {project}; check its name")
    if not answer.ok:
        raise AccessError(
            f"gcp:{name}: the head may not read it ({answer.status_code}); call it scaletrain-..., or give its service "
            "account the role secretmanager.secretAccessor on it"
        )
    return base64.b64decode(answer.json()["payload"]["data"]).decode()


def _region() -> str | None:
    """The region that is set here, or else the one that this machine of AWS is in; boto3 does not ask for that."""
    import boto3
    from botocore.utils import InstanceMetadataRegionFetcher

    region: str | None = boto3.Session().region_name
    return region or InstanceMetadataRegionFetcher(timeout=5, num_attempts=3).retrieve_region()


if __name__ == "__main__":
    main(sys.argv[1:])

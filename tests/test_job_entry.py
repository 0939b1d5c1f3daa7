"""job_entry: another version is refused, secrets are read where the job runs, and then it is the command itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from google_project import google_project
from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.job_entry import check_version, read_secret


def test_it_is_the_command() -> None:
    """What stands behind the dashes runs, and its exit code is the job's."""
    entry = [sys.executable, "-m", "scaletrain.job_entry", "--"]
    shown = subprocess.run([*entry, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "0.1.0"
    assert subprocess.run([*entry, "config", "nowhere.yaml"], capture_output=True, check=False).returncode == 2


def test_another_version_is_refused() -> None:
    """Half-matching code is worse than none: the message says how to make both equal."""
    check_version(None)
    check_version("0.1.0")
    with pytest.raises(ConfigError, match="pip install scaletrain=="):
        check_version("0.0.9")


def test_a_secret_is_read_from_the_parameter_store(s3_server: str) -> None:
    """Only its name was ever sent."""
    import boto3

    boto3.client("ssm").put_parameter(Name="/scaletrain/hf-token", Value="canary", Type="SecureString")
    assert read_secret("ssm:/scaletrain/hf-token") == "canary"


def test_a_secret_is_read_from_the_secrets_manager(s3_server: str) -> None:
    """The other place where AWS keeps secrets."""
    import boto3

    boto3.client("secretsmanager").create_secret(Name="hf-token", SecretString="canary")
    assert read_secret("secretsmanager:hf-token") == "canary"


@pytest.mark.parametrize("place", ["ssm:/scaletrain/none", "secretsmanager:none"])
def test_a_missing_secret_is_said(s3_server: str, place: str) -> None:
    """The message names the reference."""
    with pytest.raises(NotFoundError, match=f"{place}: there is no such secret"):
        read_secret(place)


@pytest.mark.parametrize("name", ["scaletrain-none"])
def test_a_missing_secret_of_google_is_said(tmp_path: Path, name: str) -> None:
    """Asked for in the project that the machine is in."""
    with (
        google_project(tmp_path),
        pytest.raises(NotFoundError, match=f"gcp:{name}: there is no such secret in project"),
    ):
        read_secret(f"gcp:{name}")

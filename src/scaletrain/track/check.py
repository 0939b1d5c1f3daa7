"""What `track` needs of this machine, looked at before a run starts."""

import netrc
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from scaletrain.config_track import AlertsSection, MlflowSection, TrackSection, WandbSection
from scaletrain.errors import ConfigError
from scaletrain.track.webhook import check_url

_ON_A_CLUSTER = "for a cluster's job as --secret {name}=ssm:/scaletrain/{parameter}"
_INSTALL = "is not installed where the command runs: pip install 'scaletrain[track]', or remove track.{name}"


def check(section: TrackSection) -> None:
    """Raise ConfigError with everything that is missing: packages, keys, the webhook's URL."""
    problems: list[str] = []
    if section.wandb is not None:
        problems += _wandb_problems(section.wandb)
    if section.mlflow is not None:
        problems += _mlflow_problems(section.mlflow)
    if section.alerts is not None:
        problems += _alert_problems(section.alerts)
    if problems:
        raise ConfigError(problems)


def _wandb_problems(section: WandbSection) -> Iterator[str]:
    if find_spec("wandb") is None:
        yield f"track.wandb: the package wandb {_INSTALL.format(name='wandb')}"
    elif section.mode == "online" and not _has_wandb_key():
        where = _ON_A_CLUSTER.format(name="WANDB_API_KEY", parameter="wandb-api-key")
        yield f"track.wandb: there is no key; set WANDB_API_KEY ({where}), or track.wandb.mode=offline"


def _has_wandb_key() -> bool:
    """Whether Weights & Biases will find credentials without asking for them, which nobody would see."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return host is not None and netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _mlflow_problems(section: MlflowSection) -> Iterator[str]:
    if find_spec("mlflow") is None:
        yield f"track.mlflow: the package mlflow {_INSTALL.format(name='mlflow')}"
    elif "://" in section.uri and not section.uri.startswith(("http", "databricks")):
        missing = [name for name in ("sqlalchemy", "alembic") if find_spec(name) is None]
        if missing:
            yield f"track.mlflow.uri: a database needs {' and '.join(missing)}: pip install mlflow, or name a server"


def _alert_problems(section: AlertsSection) -> Iterator[str]:
    name = section.webhook_variable
    url = os.environ.get(name)
    if not url:
        where = _ON_A_CLUSTER.format(name=name, parameter="webhook")
        yield f"track.alerts: the environment variable {name} is not set; put the webhook's URL there ({where})"
    elif problem := check_url(url):
        yield f"track.alerts: the environment variable {name} {problem}"

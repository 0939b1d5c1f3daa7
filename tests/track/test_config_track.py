"""config_track: what is asked of `track` is checked before anything starts, and no secret is in a configuration."""

import pytest

from commands import TINY
from scaletrain.config import Config
from scaletrain.config_file import dump_config, parse_config
from scaletrain.errors import ConfigError

SECRET = "https://hooks.example.com/services/T0/B0/secret"


def parse(*overrides: str) -> Config:
    return parse_config(TINY.format(root="bucket"), source="tiny.yaml", overrides=overrides)


def test_a_section_without_fields_asks_for_the_defaults() -> None:
    """`{}` switches a tracker on; without the section it is off, and the whole is written and read back."""
    config = parse("track.wandb={}", "track.alerts={}", "track.prometheus={}")
    assert config.track.mlflow is None
    assert config.track.wandb is not None and config.track.wandb.mode == "online"
    assert config.track.alerts is not None and len(config.track.alerts.on) == 5
    assert parse_config(dump_config(config), source="again") == config


@pytest.mark.parametrize(
    "override", [f"track.alerts.webhook={SECRET}", f"track.alerts.webhook_variable={SECRET}", f"track.alerts={SECRET}x"]
)
def test_a_webhook_in_the_configuration_is_refused_and_not_shown(override: str) -> None:
    """It would be stored with the run; the message says where it belongs."""
    if override.endswith("x"):
        override = override.replace(SECRET, "{webhook_variable: '" + SECRET).removesuffix("x") + "'}"
    with pytest.raises(ConfigError) as caught:
        parse(override)
    assert "secret" not in str(caught.value) and "hooks" not in str(caught.value)
    assert "webhook_variable" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("track.mlflow={}", "track.mlflow.uri: missing"),
        ("track.mlflow.uri=./mlruns", "is no URI of a tracking server or a database"),
        ("track.mlflow.uri=https://me:s3cr3t@host", "has a password, which would be stored with the run"),
        ("track.prometheus={port: 9000, textfile: a.prom}", "got 9000, and textfile; keep one of the two"),
        ("track.prometheus.textfile=a.txt", "only local files that end in .prom"),
        ("track.alerts.on=[stuck]", "give stalled, diverged, over_budget, finished or failed"),
        ("track.alerts.on=[]", "track.alerts.on: got"),
        ("track.alerts.diverged_factor=1", "give more than 1"),
    ],
)
def test_a_bad_value_is_told_with_what_to_do(override: str, problem: str) -> None:
    """One line for each mistake."""
    with pytest.raises(ConfigError) as caught:
        parse(override)
    assert problem in str(caught.value) and "s3cr3t" not in str(caught.value)


def test_trackers_may_change_when_a_run_goes_on() -> None:
    """They are no part of its mathematics."""
    from scaletrain.config_file import check_resume

    check_resume(parse(), parse("track.wandb={}", "track.prometheus.port=9000"))

"""check: what the machine lacks for `track` is told in one error before the run starts."""

from pathlib import Path

import pytest

from scaletrain.config_track import TrackSection
from scaletrain.errors import ConfigError
from scaletrain.track.check import check

ALL = TrackSection.model_validate({"wandb": {}, "mlflow": {"uri": "http://server"}, "alerts": {}})


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "SCALETRAIN_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_everything_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package, and the webhook's URL, with what to do about each, on a cluster too."""
    monkeypatch.setattr("scaletrain.track.check.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        check(ALL)
    told = caught.value.problems
    assert len(told) == 3
    assert "pip install 'scaletrain[track]'" in told[0] and "mlflow" in told[1]
    assert "SCALETRAIN_WEBHOOK is not set" in told[2] and "--secret SCALETRAIN_WEBHOOK=ssm:" in told[2]


def test_a_key_for_wandb_comes_from_the_environment_or_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without one it would ask, where nobody sees it; offline it needs none."""
    pytest.importorskip("wandb")
    online = TrackSection.model_validate({"wandb": {}})
    with pytest.raises(ConfigError, match="set WANDB_API_KEY"):
        check(online)
    check(TrackSection.model_validate({"wandb": {"mode": "offline"}}))
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123\n")
    check(online)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    with pytest.raises(ConfigError, match="set WANDB_API_KEY"):
        check(online)
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    check(online)


def test_a_webhook_that_is_no_url_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a secret all the same."""
    monkeypatch.setenv("SCALETRAIN_WEBHOOK", "file:///etc/secret")
    with pytest.raises(ConfigError) as caught:
        check(TrackSection.model_validate({"alerts": {}}))
    assert "holds no URL that begins with http" in str(caught.value) and "etc" not in str(caught.value)

"""requirements: everything that is missing is told at once, each with what to do."""

import pytest

from scaletrain.emulator import requirements
from scaletrain.errors import ClusterError


def test_all_missing_programs_are_told_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that can be run, and with the way through a container."""
    monkeypatch.setattr(requirements, "_PROGRAMS", {"no-such-a": "pkg-a", "no-such-b": "pkg-b", "sh": "dash"})
    monkeypatch.setattr(requirements, "_MODULES", {"aws": {"no_such_module": "no-such-dist"}})
    with pytest.raises(ClusterError) as raised:
        requirements.check_requirements()
    message = str(raised.value)
    assert "no no-such-a, no-such-b: apt-get install -y pkg-a pkg-b" in message
    assert "no no-such-dist for" in message
    assert "docker run --rm -it --privileged" in message


def test_each_cloud_asks_for_its_own_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """And names the extra that brings them."""
    monkeypatch.setattr(requirements, "_MODULES", {"aws": {}, "gcp": {"no_such.module": "no-such-dist"}})
    assert not [line for line in requirements.missing_requirements("aws") if "no-such" in line]
    (line,) = [line for line in requirements.missing_requirements("gcp") if "no-such-dist" in line]
    assert line.endswith("pip install 'scaletrain[gcp,emulator]'")

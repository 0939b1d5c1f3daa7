"""auth_token: what opens a cluster is made here, is readable by its owner only, and is never shown."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scaletrain.cluster import auth_token


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_secret_from_its_first_moment() -> None:
    """Mode 0600 in a folder of mode 0700, and 256 random bits."""
    assert auth_token.ensure_token("c")
    path = auth_token.token_path("c")
    assert (mode(path), mode(path.parent), len(path.read_text())) == (0o600, 0o700, 64)


def test_a_token_is_made_once_and_each_cluster_has_its_own() -> None:
    """A new token would lock the user out of a running cluster."""
    auth_token.ensure_token("c")
    first = auth_token.token_path("c").read_text()
    assert not auth_token.ensure_token("c")
    auth_token.ensure_token("d")
    assert auth_token.token_path("c").read_text() == first != auth_token.token_path("d").read_text()


def test_ray_reads_the_token() -> None:
    """Ray's own loader takes the file as it is, from the place where machines have it."""
    auth_token.ensure_token("c")
    (Path.home() / ".ray").mkdir()
    (Path.home() / ".ray/auth_token").write_text(auth_token.token_path("c").read_text())
    program = "from ray._raylet import AuthenticationTokenLoader as L; print(L.instance().get_raw_token(True))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == auth_token.token_path("c").read_text()


def test_the_ssh_key_opens_what_its_public_half_says() -> None:
    """The pair fits together, and the private half is the owner's alone."""
    assert auth_token.ensure_key("c")
    assert not auth_token.ensure_key("c")
    path = auth_token.key_path("c")
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == Path(f"{path}.pub").read_text().split()[:2]
    assert mode(path) == 0o600


@pytest.mark.parametrize(
    ("text", "permissions", "problem"),
    [("a" * 64, 0o644, "chmod 600"), ("tooshort1", 0o600, "shorter than 32"), (None, 0, "no token there")],
)
def test_a_bad_token_is_named_without_showing_it(text: str | None, permissions: int, problem: str) -> None:
    """The message says what to do and holds nothing secret."""
    path = Path.home() / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(permissions)
    found = auth_token.token_problem(path)
    assert found is not None and problem in found and (text or "secret") not in found


def test_removing_leaves_nothing() -> None:
    """After --destroy no key to anything lies around."""
    auth_token.ensure_token("c")
    auth_token.ensure_key("c")
    auth_token.remove_secrets("c")
    assert not auth_token.folder_of("c").exists()

"""API keys: a file with the hash of each key, its name and its limits; the keys themselves are kept by nobody.

A key is 256 random bits, so its SHA-256 needs no salt and no slow hash. The file is replaced as a whole and is read
again when it changes: a key that is revoked stops working within a second, without a restart.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from scaletrain.errors import ConfigError
from scaletrain.log import get_logger

PREFIX = "sk-scaletrain-"
_FORMAT_VERSION = 1
_LOOK_EVERY_S = 1.0

log = get_logger(__name__)


@dataclass(frozen=True)
class Key:
    """One key: `id` is how it is told from others (the beginning of its hash), limits are None where there is none."""

    id: str
    name: str
    sha256: str
    created: str
    admin: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def add_key(
    path: Path,
    name: str,
    *,
    admin: bool = False,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> str:
    """Make a key, keep its hash in the file (made where there is none), and return the key: it cannot be had again."""
    problems = [
        f"{flag}={value}: give 1 or more, or leave it out"
        for flag, value in (("requests-per-minute", requests_per_minute), ("tokens-per-minute", tokens_per_minute))
        if value is not None and value < 1
    ]
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = _digest(secret)
    key = Key(
        id=digest[:8],
        name=name,
        sha256=digest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        admin=admin,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(each.name == name for each in keys):
            problems.append(f"{path}: has a key {name!r} already; give another name, or revoke that one")
        if not name.strip():
            problems.append("the name of a key is empty; give one, as: scaletrain keys add website")
        if problems:
            raise ConfigError(problems)
        _write(path, [*keys, key])
    return secret


def revoke_key(path: Path, name_or_id: str) -> Key:
    """Take a key out of the file; raises ConfigError where there is none of that name or id."""
    with _locked(path):
        keys = read_keys(path)
        found = next((key for key in keys if name_or_id in (key.name, key.id)), None)
        if found is None:
            names = ", ".join(key.name for key in keys) or "none"
            raise ConfigError(f"{path}: there is no key {name_or_id!r}; there is {names}")
        _write(path, [key for key in keys if key is not found])
    return found


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; raises ConfigError where it cannot be read."""
    try:
        tree = orjson.loads(path.read_bytes())
        if tree["version"] != _FORMAT_VERSION:
            raise ConfigError(f"{path}: was written by another version of scaletrain (format {tree['version']})")
        return [Key(**each) for each in tree["keys"]]
    except FileNotFoundError as exc:
        raise ConfigError(
            f"{path}: there is no such file; make it with: scaletrain keys add NAME --keys {path}"
        ) from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror})") from exc
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise ConfigError(f"{path}: is no file of keys; make one with: scaletrain keys add NAME --keys FILE") from exc


class KeyRing:
    """The keys of a file as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = read_keys(path)
        self._seen = _state_of(path)
        self._look_again_at = time.monotonic() + _LOOK_EVERY_S

    @property
    def has_keys(self) -> bool:
        return bool(self._keys)

    def find(self, secret: str) -> Key | None:
        """The key that a client gave, or None; takes the same time whichever of the keys it is, or none."""
        self._refresh()
        digest = _digest(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _refresh(self) -> None:
        """Read the file again where it has changed; one that has become unreadable leaves the keys as they were."""
        if time.monotonic() < self._look_again_at:
            return
        self._look_again_at = time.monotonic() + _LOOK_EVERY_S
        state = _state_of(self._path)
        if state == self._seen:
            return
        self._seen = state
        try:
            self._keys = read_keys(self._path)
        except ConfigError as error:
            log.warning("%s; the keys stay as they were", error)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino, state.st_size


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _write(path: Path, keys: list[Key]) -> None:
    """Replace the file at once; only its owner may read it."""
    new = path.with_name(f".{path.name}.new")
    data = orjson.dumps({"version": _FORMAT_VERSION, "keys": [asdict(key) for key in keys]}, option=orjson.OPT_INDENT_2)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror})") from exc


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two commands that change a file wait for one another."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("a")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror})") from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

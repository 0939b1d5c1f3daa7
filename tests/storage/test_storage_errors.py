"""storage.errors: what a failure means, told by the exceptions of every library, and what to do about it."""

import errno
import os

import pytest

from scaletrain.errors import AccessError, NotFoundError, StorageError
from scaletrain.storage.errors import errors_of


def test_what_gcs_refuses_names_its_likely_cause() -> None:
    """The exceptions of Google's libraries are told apart like those of S3."""
    google = pytest.importorskip("google.auth.exceptions")
    api = pytest.importorskip("google.api_core.exceptions")
    cases: list[tuple[Exception, type[StorageError], str]] = [
        (google.DefaultCredentialsError("none"), AccessError, "gcloud auth application-default login"),
        (api.Unauthorized("Anonymous caller"), AccessError, "no usable credentials"),
        (api.Forbidden("no storage.objects.get"), AccessError, "Storage Object Admin"),
        (FileNotFoundError("b/x"), NotFoundError, "not found"),
        (api.ServiceUnavailable("busy"), StorageError, r"overloaded \(503\)"),
        (google.TransportError("no route"), StorageError, "check the network"),
        (api.BadRequest("a bad name"), StorageError, "BadRequest: 400 a bad name"),
    ]
    for error, kind, text in cases:
        with pytest.raises(kind, match=text) as raised, errors_of("gs://b/x"):
            raise error
        assert type(raised.value) is kind and raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EACCES, AccessError, "permission denied .*check the owner and mode"),
        (errno.EROFS, StorageError, "read-only"),
        (errno.ENOSPC, StorageError, "disk of this machine is full"),
        (errno.EDQUOT, StorageError, "disk of this machine is full"),
        (errno.EIO, StorageError, "Input/output error"),
        (errno.ETIMEDOUT, StorageError, "no answer"),
    ],
)
def test_every_failure_of_a_disk_names_its_cause(number: int, kind: type[StorageError], text: str) -> None:
    """The errors of the operating system are told apart, and name the path."""
    with pytest.raises(kind, match=rf"^/disk/x: .*{text}"), errors_of("/disk/x"):
        raise OSError(number, os.strerror(number))


def test_a_bug_is_not_dressed_up() -> None:
    """An error that is no failure of storage passes unchanged."""
    with pytest.raises(TypeError), errors_of("s3://b/x"):
        raise TypeError("a bug")


def test_no_password_is_shown() -> None:
    """User and password in a URL do not reach the message."""
    with pytest.raises(StorageError) as raised, errors_of("sftp://me:secret@host/x"):
        raise FileNotFoundError("x")
    assert "secret" not in str(raised.value) and "sftp://host/x" in str(raised.value)

"""storage in a local folder: what a disk does that a bucket does not, and a bucket's promises kept all the same."""

import errno
import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from scaletrain import storage
from scaletrain.errors import AccessError, StorageError
from scaletrain.storage import local
from scaletrain.storage.errors import errors_of


def test_a_local_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    """While an object is replaced again and again, every read sees one of the versions whole."""
    url = str(tmp_path / "object")
    storage.write_bytes(url, b"0" * 100_000)
    done = threading.Event()

    def replace() -> None:
        for digit in b"123456789" * 3:
            storage.write_bytes(url, bytes([digit]) * 100_000)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not done.is_set():
        data = storage.read_bytes(url)
        assert len(data) == 100_000 and len(set(data)) == 1
    writer.join()


def test_a_file_that_is_being_written_is_not_listed(tmp_path: Path) -> None:
    """What a killed writer leaves behind is no object: it is in no listing, and does not make a folder exist."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".0123.partial").write_bytes(b"half")
    assert storage.list_objects(str(tmp_path)) == []
    assert storage.glob(str(tmp_path / "runs/*")) == []
    assert storage.glob(str(tmp_path / "runs/.*")) == []
    assert storage.list_folders(str(tmp_path)) == []
    assert not storage.exists(str(tmp_path / "runs"))


def test_a_write_that_fails_leaves_the_old_object_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full, the error says so, the old object is whole and no temporary file stays."""
    url = str(tmp_path / "object")
    storage.write_bytes(url, b"old")

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"object: the disk of this machine is full; free some space"):
        storage.write_bytes(url, b"new")
    monkeypatch.undo()
    assert storage.read_bytes(url) == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["object"]


def test_a_really_full_disk_is_reported() -> None:
    """Writing to a device that is always full is a StorageError that names the cause."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="the disk of this machine is full"), errors_of("/dev/full"):
        Path("/dev/full").write_bytes(b"x")


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    """Others may read what the umask lets them read: an object is not private to its writer."""
    storage.write_bytes(str(tmp_path / "written"), b"x")
    storage.create(str(tmp_path / "created"), b"x")
    (tmp_path / "plain").write_bytes(b"x")
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["written"] == modes["created"] == modes["plain"]


def test_removing_a_link_spares_what_it_points_to(tmp_path: Path) -> None:
    """A symbolic link is removed as a link."""
    storage.write_bytes(str(tmp_path / "data/x"), b"x")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    storage.remove(str(tmp_path / "link"))
    assert storage.exists(str(tmp_path / "data/x")) and not (tmp_path / "link").exists()


def test_a_path_through_a_file_says_so(tmp_path: Path) -> None:
    """A folder that is asked for below a file is our error."""
    storage.write_bytes(str(tmp_path / "file"), b"x")
    with pytest.raises(StorageError, match="part of the path is a file"):
        storage.write_bytes(str(tmp_path / "file/below"), b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_an_access_error(tmp_path: Path) -> None:
    """A folder without write permission is an AccessError that says what to check."""
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(AccessError, match=r"permission denied .*check the owner and mode"):
        storage.write_bytes(str(tmp_path / "closed/x"), b"x")


def test_relative_patterns_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative glob gives relative names, and a file URL gives file URLs."""
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("raw/a.json", b"x")
    assert [each.url for each in storage.glob("raw/*.json")] == ["raw/a.json"]
    assert [each.url for each in storage.glob("*/a.json")] == ["raw/a.json"]
    assert [each.url for each in storage.glob(f"file://{tmp_path}/raw/*")] == [f"file://{tmp_path}/raw/a.json"]


def test_a_folder_is_removed_while_somebody_still_writes_there(tmp_path: Path) -> None:
    """As in a bucket, files that appear while a folder is removed are no error: they go too."""
    folder = tmp_path / "step"
    done = threading.Event()

    def write() -> None:
        for number in range(20_000):
            if done.is_set():
                return
            with suppress(FileNotFoundError, FileExistsError):  # the folder went a moment ago
                folder.mkdir(exist_ok=True)
                (folder / str(number)).touch()

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(300):
        storage.remove(str(folder))
    done.set()
    writer.join()
    storage.remove(str(folder))
    assert not folder.exists()


def test_half_written_files_are_removed_when_asked(tmp_path: Path) -> None:
    """What a killed process left is in no listing, and goes once it is old; whole files, and folders below, stay."""
    for name in (".0123456789abcdef.partial", "whole", "below/.0123456789abcdef.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    storage.remove_half_written(str(tmp_path), unchanged_for_s=60)
    assert len(list(tmp_path.iterdir())) == 3  # somebody may be writing
    an_hour_ago = time.time() - 3600
    os.utime(tmp_path / ".0123456789abcdef.partial", (an_hour_ago, an_hour_ago))
    storage.remove_half_written(str(tmp_path), unchanged_for_s=60)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["below/.0123456789abcdef.partial", "whole"]


def test_a_replacement_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that stands still in the middle of one is told of, and its lock goes with it."""
    monkeypatch.setattr(local, "_LOCK_S", 0.2)
    url = str(tmp_path / "manifest.json")
    storage.write_bytes(url, b"first")
    seen = storage.info(url).version
    with Path(url).open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"manifest.json: .* a process that stands still is replacing this file"):
            storage.replace(url, b"second", version=seen)
    assert storage.replace(url, b"second", version=seen)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_creation_whose_answer_a_network_disk_lost_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link was made, and the second request for it is told that there is such a file."""
    hardlink_to = Path.hardlink_to

    def link_twice(path: Path, target: Path) -> None:
        for _ in range(2):
            hardlink_to(path, target)

    monkeypatch.setattr(Path, "hardlink_to", link_twice)
    assert storage.create(str(tmp_path / "attempt"), b"mine") is True
    assert storage.create(str(tmp_path / "attempt"), b"yours") is False
    assert (tmp_path / "attempt").read_bytes() == b"mine"

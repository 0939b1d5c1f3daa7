"""storage: one contract, held by a local folder, by memory, by S3 and by Google Cloud Storage."""

import gzip
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scaletrain import storage
from scaletrain.errors import ConfigError, NotFoundError, StorageError


def urls(root: str, objects: list[storage.ObjectInfo]) -> list[str]:
    return [each.url.removeprefix(root) for each in objects]


# --- URLs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parts", "joined"),
    [
        ("s3://b", ("runs", "a"), "s3://b/runs/a"),
        ("s3://b/x/", ("/y/", "z.json"), "s3://b/x/y/z.json"),
        ("memory://", ("a",), "memory://a"),
        ("/", ("a",), "/a"),
        ("bucket", ("a/b", ""), "bucket/a/b"),
        ("file:///tmp/", ("a",), "file:///tmp/a"),
    ],
)
def test_join_puts_one_slash_between_parts(url: str, parts: tuple[str, ...], joined: str) -> None:
    """Parts are joined by exactly one slash, and the double slash of the scheme survives."""
    assert storage.join(url, *parts) == joined


def test_local_urls_are_plain_paths_and_file_urls() -> None:
    """A plain path and a file:// URL are local, `~` is the home folder, and a bucket is not local."""
    assert storage.is_local("bucket") and storage.is_local("file:///x") and not storage.is_local("s3://b/x")
    assert storage.local_path("file:///x/y") == Path("/x/y")
    assert storage.local_path("~/y") == Path.home() / "y"


def test_absolute_frees_a_local_root_from_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder becomes absolute, so that a worker elsewhere finds it; a bucket stays as it is."""
    monkeypatch.chdir("/")
    assert storage.absolute("bucket") == "/bucket"
    assert storage.absolute("s3://b/x") == "s3://b/x"


# --- The contract -------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_back(bucket_root: str) -> None:
    """Bytes and text come back as they were, an empty object too, and a second write replaces the first."""
    url = storage.join(bucket_root, "a/b.bin")
    for data in (b"first", b"", bytes(range(256)) * 10):
        storage.write_bytes(url, data)
        assert storage.read_bytes(url) == data
    storage.write_text(url, "größer, 更大\n")
    assert storage.read_text(url) == "größer, 更大\n"


def test_a_range_is_read_and_ends_where_the_object_ends(bucket_root: str) -> None:
    """A range has the bytes asked for, fewer at the end of the object, and none behind it."""
    url = storage.join(bucket_root, "range.bin")
    storage.write_bytes(url, b"0123456789")
    assert storage.read_bytes(url, start=2, length=3) == b"234"
    assert storage.read_bytes(url, start=7) == b"789"
    assert storage.read_bytes(url, start=8, length=100) == b"89"
    assert storage.read_bytes(url, length=4) == b"0123"
    assert storage.read_bytes(url, start=10) == b""
    assert storage.read_bytes(url, start=50, length=5) == b""
    assert storage.read_bytes(url, start=3, length=0) == b""


def test_a_stream_can_be_read_in_pieces_and_decompressed(bucket_root: str) -> None:
    """An opened object is a plain binary file: it reads, seeks, iterates over lines and feeds gzip."""
    url = storage.join(bucket_root, "lines.gz")
    text = b"".join(b"line %d\n" % number for number in range(50_000))
    storage.write_bytes(url, gzip.compress(text, compresslevel=1))
    with storage.open_read(url) as file, gzip.open(file) as lines:
        assert b"".join(lines) == text
    with storage.open_read(url) as file:
        assert file.read(2) == b"\x1f\x8b"
        assert file.seek(0) == 0
        assert gzip.decompress(file.read()) == text


def test_two_streams_of_one_object_do_not_disturb_each_other(bucket_root: str) -> None:
    """Every reader has its own position."""
    url = storage.join(bucket_root, "shared.bin")
    storage.write_bytes(url, b"abcdef")
    with storage.open_read(url) as first, storage.open_read(url) as second:
        assert (first.read(2), second.read(3), first.read(2)) == (b"ab", b"abc", b"cd")


def test_exists_knows_objects_and_folders(bucket_root: str) -> None:
    """An object exists, the folder above it exists, and a name that only begins alike does not."""
    storage.write_bytes(storage.join(bucket_root, "runs/a/config.yaml"), b"x")
    assert storage.exists(storage.join(bucket_root, "runs/a/config.yaml"))
    assert storage.exists(storage.join(bucket_root, "runs/a"))
    assert not storage.exists(storage.join(bucket_root, "runs/a/config"))
    assert not storage.exists(storage.join(bucket_root, "run"))


def test_info_tells_size_and_a_version_that_changes(bucket_root: str) -> None:
    """The version of an object is the same in a listing, and another one after its bytes were replaced."""
    url = storage.join(bucket_root, "a.txt")
    storage.write_bytes(url, b"one")
    first = storage.info(url)
    assert (first.url, first.size_bytes) == (url, 3)
    assert storage.list_objects(bucket_root) == [first]
    storage.write_bytes(url, b"two")
    assert storage.info(url).version != first.version


def test_a_listing_is_recursive_sorted_and_bounded_by_the_folder(bucket_root: str) -> None:
    """A listing has everything below the folder, in order, and nothing of a neighbour whose name begins alike."""
    for name in ("runs/b/x", "runs/a/2", "runs/a/1", "runs/a/deep/er/3", "runs/ab/no"):
        storage.write_bytes(storage.join(bucket_root, name), b"x")
    found = storage.list_objects(storage.join(bucket_root, "runs/a"))
    assert urls(bucket_root, found) == ["/runs/a/1", "/runs/a/2", "/runs/a/deep/er/3"]
    assert storage.list_objects(storage.join(bucket_root, "runs/nothing")) == []
    assert storage.list_objects(storage.join(bucket_root, "runs/b/x")) == [
        storage.info(storage.join(bucket_root, "runs/b/x"))
    ]


def test_a_listing_is_never_stale(bucket_root: str) -> None:
    """What was written after a first listing is in the next one, and what was removed is not."""
    for step in range(3):
        storage.write_bytes(storage.join(bucket_root, f"checkpoints/step-{step}/manifest.json"), b"x")
        assert len(storage.list_objects(bucket_root)) == step + 1
        assert len(storage.list_folders(storage.join(bucket_root, "checkpoints"))) == step + 1
    storage.remove(storage.join(bucket_root, "checkpoints/step-1"))
    assert storage.list_folders(storage.join(bucket_root, "checkpoints")) == ["step-0", "step-2"]


def test_folders_are_named_and_sorted(bucket_root: str) -> None:
    """Only the folders directly below are named, without objects; a missing folder has none."""
    for name in ("runs/b/x/y", "runs/a/x", "runs/file"):
        storage.write_bytes(storage.join(bucket_root, name), b"x")
    assert storage.list_folders(storage.join(bucket_root, "runs")) == ["a", "b"]
    assert storage.list_folders(storage.join(bucket_root, "nothing")) == []


def test_a_folder_is_gone_with_its_last_object(bucket_root: str) -> None:
    """As in a bucket, a folder without objects does not exist, on a local disk too."""
    storage.write_bytes(storage.join(bucket_root, "runs/a/x"), b"x")
    storage.remove(storage.join(bucket_root, "runs/a/x"))
    assert not storage.exists(storage.join(bucket_root, "runs/a"))
    assert storage.list_folders(storage.join(bucket_root, "runs")) == []


def test_glob_takes_a_file_a_folder_or_a_pattern(bucket_root: str) -> None:
    """A corpus may be named as one file, as a folder, or by wildcards; folders that match stand for all they hold."""
    for name in ("raw/a.json", "raw/b.json", "raw/c.txt", "raw/deep/d.json", "rawest/e.json"):
        storage.write_bytes(storage.join(bucket_root, name), b"x")

    def found(pattern: str) -> list[str]:
        return urls(bucket_root, storage.glob(storage.join(bucket_root, pattern)))

    assert found("raw/a.json") == ["/raw/a.json"]
    assert found("raw") == ["/raw/a.json", "/raw/b.json", "/raw/c.txt", "/raw/deep/d.json"]
    assert found("raw/*.json") == ["/raw/a.json", "/raw/b.json"]
    assert found("raw/[bc].*") == ["/raw/b.json", "/raw/c.txt"]
    assert found("raw/**/*.json") == ["/raw/a.json", "/raw/b.json", "/raw/deep/d.json"]
    assert found("raw/d*") == ["/raw/deep/d.json"]
    assert found("raw*/*/*.json") == ["/raw/deep/d.json"]
    assert found("raw*/e.json") == ["/rawest/e.json"]
    assert found("**/d.json") == ["/raw/deep/d.json"]
    assert found("r*/**") == ["/raw/a.json", "/raw/b.json", "/raw/c.txt", "/raw/deep/d.json", "/rawest/e.json"]
    assert found("raw/*.parquet") == []


def test_create_succeeds_once(bucket_root: str) -> None:
    """The second creation of an object is told so, and leaves the first one's bytes."""
    url = storage.join(bucket_root, "attempts/attempt-0001.json")
    assert storage.create(url, b"mine") is True
    assert storage.create(url, b"yours") is False
    assert storage.read_bytes(url) == b"mine"
    assert len(storage.list_objects(bucket_root)) == 1


def test_of_many_creators_exactly_one_wins(bucket_root: str) -> None:
    """When many create the same object at once, one is told True and its bytes are the object's."""
    url = storage.join(bucket_root, "attempt.json")
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda number: storage.create(url, b"%d" % number), range(16)))
    assert won.count(True) == 1
    assert storage.read_bytes(url) == b"%d" % won.index(True)


def test_a_version_is_replaced_once(bucket_root: str) -> None:
    """Only the version that was seen gives way; one that has come since, and none at all, do not."""
    url = storage.join(bucket_root, "manifest.json")
    storage.write_bytes(url, b"first")
    seen = storage.info(url).version
    assert storage.replace(url, b"second", version=seen) is True
    assert storage.replace(url, b"third", version=seen) is False
    assert storage.read_bytes(url) == b"second"
    storage.remove(url)
    assert storage.replace(url, b"fourth", version=seen) is False
    assert storage.list_objects(bucket_root) == []


def test_of_many_who_replace_a_version_exactly_one_wins(bucket_root: str) -> None:
    """When many replace what they have seen at once, one is told True and its bytes are the object's."""
    url = storage.join(bucket_root, "manifest.json")
    storage.write_bytes(url, b"seen")
    seen = storage.info(url).version
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda number: storage.replace(url, b"%d" % number, version=seen), range(16)))
    assert won.count(True) == 1
    assert storage.read_bytes(url) == b"%d" % won.index(True)


def test_remove_takes_a_folder_and_spares_its_neighbours(bucket_root: str) -> None:
    """A removed folder is gone with all below it; a name that only begins alike stays; a second removal is fine."""
    for name in ("runs/a/1", "runs/a/deep/2", "runs/ab/3", "runs/a[1]*?.json"):
        storage.write_bytes(storage.join(bucket_root, name), b"x")
    storage.remove(storage.join(bucket_root, "runs/a"))
    storage.remove(storage.join(bucket_root, "runs/a"))
    assert urls(bucket_root, storage.list_objects(bucket_root)) == ["/runs/a[1]*?.json", "/runs/ab/3"]
    storage.remove(storage.join(bucket_root, "runs/a[1]*?.json"))
    assert urls(bucket_root, storage.list_objects(bucket_root)) == ["/runs/ab/3"]


@pytest.mark.parametrize("name", ["with space.txt", "größe-更大.txt", "100%25.txt", "a+b=c&d#e?f.txt", ".hidden"])
def test_any_name_survives(bucket_root: str, name: str, tmp_path: Path) -> None:
    """Names with blanks, umlauts, Chinese and URL characters are stored, listed, copied and removed as they are."""
    url = storage.join(bucket_root, "names", name)
    storage.write_bytes(url, b"data")
    assert [each.url for each in storage.list_objects(bucket_root)] == [url]
    storage.download_folder(storage.join(bucket_root, "names"), tmp_path / "copy")
    assert (tmp_path / "copy" / name).read_bytes() == b"data"
    storage.remove(url)
    assert not storage.exists(url)


def test_files_go_up_and_come_down(bucket_root: str, tmp_path: Path) -> None:
    """A file is uploaded and downloaded whole, into folders that did not exist."""
    (tmp_path / "up.bin").write_bytes(os.urandom(1_000_000))
    url = storage.join(bucket_root, "new/folder/up.bin")
    storage.upload_file(tmp_path / "up.bin", url)
    storage.download_file(url, tmp_path / "other/folder/down.bin")
    assert (tmp_path / "other/folder/down.bin").read_bytes() == (tmp_path / "up.bin").read_bytes()


def test_folders_keep_their_relative_names(bucket_root: str, tmp_path: Path) -> None:
    """A folder goes up and comes down with the same relative names, symbolic links as the files they point to."""
    contents = {"config.json": b"{}", "deep/er/weights.bin": b"w" * 1000, "empty": b""}
    for name, data in contents.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(data)
    (tmp_path / "up/link").symlink_to(tmp_path / "up/config.json")
    storage.upload_folder(tmp_path / "up", storage.join(bucket_root, "model"), max_workers=4)
    storage.download_folder(storage.join(bucket_root, "model/"), tmp_path / "down", max_workers=4)
    down = {
        each.relative_to(tmp_path / "down").as_posix(): each.read_bytes()
        for each in (tmp_path / "down").rglob("*")
        if each.is_file()
    }
    assert down == contents | {"link": b"{}"}


def test_what_is_missing_is_a_not_found_error(bucket_root: str, tmp_path: Path) -> None:
    """Reading, measuring, opening or downloading what is not there names the URL; no half file stays behind."""
    url = storage.join(bucket_root, "missing.txt")
    storage.write_bytes(storage.join(bucket_root, "here"), b"x")
    actions = [
        lambda: storage.read_bytes(url),
        lambda: storage.read_bytes(url, start=1, length=1),
        lambda: storage.info(url),
        lambda: storage.open_read(url),
        lambda: storage.download_file(url, tmp_path / "down/missing.txt"),
        lambda: storage.download_folder(url, tmp_path / "down"),
    ]
    for action in actions:
        with pytest.raises(NotFoundError, match=r"missing\.txt"):
            action()
    assert not list(tmp_path.glob("down/*"))
    with pytest.raises(NotFoundError, match="no such file to upload"):
        storage.upload_file(tmp_path / "none", url)
    with pytest.raises(NotFoundError, match="no such folder to upload"):
        storage.upload_folder(tmp_path / "none", url)


def test_a_folder_is_no_file(bucket_root: str) -> None:
    """Asking for size and version of a folder is a NotFoundError, not a size of zero."""
    storage.write_bytes(storage.join(bucket_root, "folder/x"), b"x")
    with pytest.raises(NotFoundError, match="folder"):
        storage.info(storage.join(bucket_root, "folder"))


def test_text_that_is_not_utf8_is_our_error(bucket_root: str) -> None:
    """Bytes that are no UTF-8 are a StorageError that names the URL."""
    url = storage.join(bucket_root, "latin1.txt")
    storage.write_bytes(url, "größe".encode("latin-1"))
    with pytest.raises(StorageError, match=r"latin1\.txt: is not UTF-8"):
        storage.read_text(url)


def test_threads_upload_and_read_in_parallel(bucket_root: str) -> None:
    """Threads share the connection: what each wrote is what each reads."""

    def write_and_read(number: int) -> bool:
        url = storage.join(bucket_root, f"threads/{number}")
        storage.write_bytes(url, b"%d" % number)
        return storage.read_bytes(url) == b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(64)))
    assert len(storage.list_objects(storage.join(bucket_root, "threads"))) == 64


# --- Options and packages -----------------------------------------------------------------------------------------


def test_an_option_that_would_be_ignored_is_refused() -> None:
    """A misspelt option is an error with a suggestion, and a local folder takes no options."""
    with pytest.raises(ConfigError, match=r"storage.options.endpont_url: .*did you mean endpoint_url\?"):
        storage.configure("s3://b", {"endpont_url": "http://x"})
    with pytest.raises(ConfigError, match="local folder and takes no options"):
        storage.configure("bucket", {"anon": True})


def test_an_unknown_kind_of_url_is_refused() -> None:
    """A misspelt scheme is the user's mistake."""
    for action in (lambda: storage.configure("s4://b", {}), lambda: storage.read_bytes("s4://b/x")):
        with pytest.raises(ConfigError, match="s4://: unknown kind of URL; use s3://, gs:// or a local folder"):
            action()


@pytest.mark.parametrize(
    ("url", "package", "extra"), [("s3://b", "boto3", "aws"), ("gs://b", "google.cloud.storage", "gcp")]
)
def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    """Where the package that speaks to a bucket is not installed, the error says how to install it."""
    options = storage.options_of(url)
    storage.configure(url, {})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StorageError, match=rf"is not installed; pip install 'scaletrain\[{extra}\]'"):
        storage.exists(storage.join(url, "x"))
    storage.configure(url, options)

"""storage: one contract, held by a local folder, by memory and by S3; and errors that say what to do."""

import errno
import gzip
import http.server
import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from scaletrain import storage
from scaletrain.errors import AccessError, ConfigError, NotFoundError, StorageError
from scaletrain.storage_errors import errors_of


@pytest.fixture(autouse=True)
def fresh_connections() -> Iterator[None]:
    """Let no test see another's options or environment through a connection that was kept."""
    yield
    storage.configure("s3://any", {})


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


# --- A local folder -----------------------------------------------------------------------------------------------


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


# --- S3 -----------------------------------------------------------------------------------------------------------


def test_a_missing_bucket_is_named(s3_server: str) -> None:
    """Whatever is asked of a bucket that is not there, the error names the bucket and says what to do."""
    url = "s3://no-such-bucket-here/x"
    actions = [
        lambda: storage.read_bytes(url),
        lambda: storage.write_bytes(url, b"x"),
        lambda: storage.create(url, b"x"),
        lambda: storage.exists(url),
        lambda: storage.info(url),
        lambda: storage.list_objects(url),
        lambda: storage.list_folders(url),
        lambda: storage.glob(url + "/*.json"),
        lambda: storage.remove(url),
    ]
    for number, action in enumerate(actions):
        with pytest.raises(NotFoundError, match=r"there is no bucket 'no-such-bucket-here'; check the name") as raised:
            action()
        assert raised.value.exit_code == 2, number


@pytest.mark.parametrize("url", ["s3://", "s3://bucket-only", "s3://not a bucket/x"])
def test_a_url_without_a_proper_bucket_and_name_is_refused(s3_server: str, url: str) -> None:
    """A URL that no object can have is told by how it should look, not by a page of regular expressions."""
    with pytest.raises(NotFoundError, match=r"^\S*[^\n]*: is not the URL of an object; write s3://bucket/folder/name$"):
        storage.write_bytes(url, b"x")


def test_missing_credentials_say_how_to_log_in(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without credentials the error says so, and which commands give some."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    storage.configure(s3_bucket, {})
    with pytest.raises(AccessError, match=r"no usable credentials .*aws configure.*AWS_PROFILE"):
        storage.write_bytes(storage.join(s3_bucket, "x"), b"x")
    storage.configure(s3_bucket, {"profile": "nobody"})
    with pytest.raises(AccessError, match=r"no usable credentials \(ProfileNotFound\)"):
        storage.write_bytes(storage.join(s3_bucket, "x"), b"x")


def test_no_network_is_told_from_a_missing_object(monkeypatch: pytest.MonkeyPatch, s3_bucket: str) -> None:
    """A port where nobody listens gives a StorageError about the network."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        storage.configure(s3_bucket, {"endpoint_url": f"http://127.0.0.1:{closed.getsockname()[1]}"})
        with pytest.raises(StorageError, match=r"no answer .*check the network") as raised:
            storage.exists(storage.join(s3_bucket, "x"))
    assert raised.value.exit_code == 1


def test_the_endpoint_can_be_an_option(s3_bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """storage.options.endpoint_url is as good as the environment."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    storage.configure(s3_bucket, {"endpoint_url": s3_server})
    storage.write_bytes(storage.join(s3_bucket, "x"), b"x")
    assert storage.read_bytes(storage.join(s3_bucket, "x")) == b"x"


class _ScriptedS3(http.server.BaseHTTPRequestHandler):
    """Answers requests with the (status, S3 error code) pairs of `script`, in order, then with 200."""

    script: ClassVar[list[tuple[int, str]]] = []
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, code = self.script.pop(0) if self.script else (200, "")
        body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode() if code else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET = do_HEAD = answer

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def scripted_s3(s3_server: str) -> Iterator[type[_ScriptedS3]]:
    """A server that answers as told, for answers that moto never gives."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _ScriptedS3)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    storage.configure("s3://b", {"endpoint_url": f"http://127.0.0.1:{server.server_address[1]}"})
    yield _ScriptedS3
    server.shutdown()
    server.server_close()


def test_a_conflicting_creation_is_tried_again(scripted_s3: type[_ScriptedS3]) -> None:
    """S3 answers 409 while another creation is under way and asks to try again; the answer after that counts."""
    scripted_s3.script = [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed")]
    assert storage.create("s3://b/x", b"x") is False
    scripted_s3.script = [(409, "ConditionalRequestConflict"), (200, "")]
    assert storage.create("s3://b/x", b"x") is True
    scripted_s3.script = [(409, "ConditionalRequestConflict")] * 100
    with pytest.raises(StorageError, match="others kept creating the same object"):
        storage.create("s3://b/x", b"x")


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "AccessDenied", AccessError, r"access denied \(AccessDenied\).*s3:PutObject"),
        (403, "InvalidAccessKeyId", AccessError, "the credentials were refused"),
        (400, "ExpiredToken", AccessError, "the credentials were refused"),
        (403, "RequestTimeTooSkewed", AccessError, "clock is wrong"),
        (400, "AuthorizationHeaderMalformed", StorageError, "in another region .*AWS_DEFAULT_REGION"),
        (404, "NoSuchBucket", NotFoundError, "there is no bucket 'b'"),
        (507, "SomethingNew", StorageError, "SomethingNew"),
    ],
)
def test_every_refusal_names_its_likely_cause(
    scripted_s3: type[_ScriptedS3], status: int, code: str, kind: type[StorageError], text: str
) -> None:
    """What S3 refuses is told apart: no permission, bad credentials, a wrong clock, another region, no bucket."""
    scripted_s3.script = [(status, code)] * 20
    with pytest.raises(kind, match=rf"^s3://b/x: .*{text}") as raised:
        storage.write_bytes("s3://b/x", b"x")
    assert type(raised.value) is kind


def test_a_file_of_several_parts_goes_up_and_comes_down(s3_bucket: str, tmp_path: Path) -> None:
    """A file that S3 takes in parts arrives whole, and its creation is conditional too."""
    data = os.urandom(2**20) * 110
    (tmp_path / "up.bin").write_bytes(data)
    url = storage.join(s3_bucket, "big.bin")
    storage.upload_file(tmp_path / "up.bin", url)
    storage.download_file(url, tmp_path / "down.bin")
    assert (tmp_path / "down.bin").read_bytes() == data
    assert storage.create(url, data) is False
    with storage.open_read(url) as file:
        file.seek(100 * 2**20)
        assert file.read() == data[100 * 2**20 :]


def test_markers_of_folders_are_no_objects(s3_bucket: str) -> None:
    """The empty object that consoles make for a new folder is in no listing."""
    import boto3

    boto3.client("s3").put_object(Bucket=s3_bucket.removeprefix("s3://"), Key="raw/", Body=b"")
    storage.write_bytes(storage.join(s3_bucket, "raw/a.json"), b"x")
    assert urls(s3_bucket, storage.list_objects(s3_bucket)) == ["/raw/a.json"]
    assert urls(s3_bucket, storage.glob(storage.join(s3_bucket, "raw/*"))) == ["/raw/a.json"]


def test_a_listing_longer_than_a_page_is_whole(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 lists page by page; all pages are in the listing."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    for number in range(25):
        storage.write_bytes(storage.join(s3_bucket, f"many/{number:04d}"), b"")
    assert len(storage.list_objects(storage.join(s3_bucket, "many"))) == 25


def test_a_name_that_leaves_the_folder_is_refused(s3_bucket: str, tmp_path: Path) -> None:
    """A key with '..' in it cannot write outside the folder it is downloaded to."""
    import boto3

    boto3.client("s3").put_object(Bucket=s3_bucket.removeprefix("s3://"), Key="model/../../evil", Body=b"x")
    with pytest.raises(StorageError, match="would be written outside"):
        storage.download_folder(storage.join(s3_bucket, "model"), tmp_path / "down")


def test_a_forked_process_can_read(s3_bucket: str) -> None:
    """A process that was forked after the connection was made has one of its own."""
    url = storage.join(s3_bucket, "x")
    storage.write_bytes(url, b"x")
    child = multiprocessing.get_context("fork").Process(target=storage.read_bytes, args=(url,))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0


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


def test_what_gcs_refuses_names_its_likely_cause() -> None:
    """The exceptions of gcsfs and google-auth are told apart like those of S3."""
    google = pytest.importorskip("google.auth.exceptions")
    retry = pytest.importorskip("gcsfs.retry")
    cases: list[tuple[Exception, type[StorageError], str]] = [
        (google.DefaultCredentialsError("none"), AccessError, "gcloud auth application-default login"),
        (retry.HttpError({"code": 401, "message": "Anonymous caller"}), AccessError, "no usable credentials"),
        (OSError("Forbidden: b/x\nno storage.objects.get"), AccessError, "Storage Object Admin"),
        (FileNotFoundError("b/x"), NotFoundError, "not found"),
        (retry.HttpError({"code": 503, "message": "busy"}), StorageError, "busy"),
        (google.TransportError("no route"), StorageError, "check the network"),
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

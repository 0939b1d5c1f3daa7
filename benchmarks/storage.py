"""Moving bytes to a bucket and back: MB/s and CPU of scaletrain beside fsspec, boto3, Google's, obstore and bare HTTP.

    python benchmarks/storage.py [--write benchmarks/results/storage.md]

Each arm moves one file of 256 MB, and 64 files of 4 MB eight at a time, up and down, to a server of this machine, with
and without a proxy that lets every request wait for 30 ms:

    bare HTTP     the limit: http.client in eight threads, no checksums, no parts put together, nothing retried
    s3fs, gcsfs   as they come
    boto3         its transfer manager, in Python and with the AWS Common Runtime (CRT)
    google-cloud  google-cloud-storage's transfer manager, parts and ranges of 8 MiB in eight threads
    obstore       parts and ranges of 8 MiB, eight at a time
    scaletrain    upload_file, download_file, upload_folder, download_folder; alone it waits until a download is on disk

obstore and the CRT are measured where they are installed (pip install awscrt obstore). Takes some six minutes and 1 GB
of the temporary folder. The servers run on the same cores (one of our own for S3, as moto needs longer for an upload in
parts than any client; fake-gcs-server for GCS, behind a program in Python that takes uploads in parts for it): what
carries over to a real bucket is the CPU that a client needs, and how it hides latency.
"""

import argparse
import http.client
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

import measure
from scaletrain import storage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bucket_servers import environment_of, fast_s3_process, gcs_process, make_bucket, proxy_process

MB = 10**6
BIG_BYTES = 256 * MB
SMALL_BYTES, SMALL_FILES = 4 * MB, 64
PIECE_BYTES = 8 * 2**20
THREADS = 8
LATENCY_S = 0.03
BUCKET = "benchmark"
NOTE = (
    "scaletrain alone waits until a download is on the disk. S3 is a server that checks nothing, and GCS one that is "
    "slower than any client (gcsfs's parts follow one another, and it takes time with the square of their number)."
)
LIMIT, OURS = "bare HTTP", "scaletrain"
WORKLOADS = ("256 MB up", "256 MB down", "64 x 4 MB up", "64 x 4 MB down")


@dataclass
class Arm:
    """One way to move bytes: of one file, and of all files of a folder, in each direction."""

    name: str
    send: Callable[[Path, str], None]
    fetch: Callable[[str, Path], None]
    send_all: Callable[[Path, str], None]
    fetch_all: Callable[[str, Path], None]
    own_cpu_s: dict[str, list[float]] = field(default_factory=dict)

    def run(self, workload: str, folder: Path) -> None:
        """Move 256 MB in one of the four ways."""
        start_cpu_s = time.process_time()
        if workload == "256 MB up":
            self.send(folder / "big", "big")
        elif workload == "256 MB down":
            self.fetch("big", folder / "down")
        elif workload == "64 x 4 MB up":
            self.send_all(folder / "small", "small")
        else:
            self.fetch_all("small", folder / "small-down")
        self.own_cpu_s.setdefault(workload, []).append(time.process_time() - start_cpu_s)


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=3, help="how often each arm runs (default: %(default)s)")
    arguments = parser.parse_args()
    optional = [name for name in ("awscrt", "obstore") if importlib.util.find_spec(name)]
    machine = measure.machine("s3fs", "gcsfs", "boto3", "google-cloud-storage", *optional)
    reports = []
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as name:
        write_files(Path(name))
        for kind, latency_s in (("S3", 0.0), ("S3", LATENCY_S), ("GCS", LATENCY_S)):
            with server(kind, latency_s) as endpoint_url:
                waiting = f"each request waits {latency_s * 1e3:.0f} ms" if latency_s else "no latency added"
                table = compare(kind, endpoint_url, Path(name), rounds=arguments.rounds)
                reports.append(f"## {kind}, {waiting}\n\n{table}")
    report = "\n\n".join(reports)
    measure.publish(f"# Moving bytes to a bucket and back\n\n{machine}\n\n{NOTE}\n\n{report}", arguments.write)


@contextmanager
def server(kind: str, latency_s: float) -> Iterator[str]:
    """A server with an empty bucket, this process pointed at it; through the proxy where there is to be latency."""
    with ExitStack() as stack:
        endpoint_url = stack.enter_context(fast_s3_process() if kind == "S3" else gcs_process())
        make_bucket(f"{'s3' if kind == 'S3' else 'gs'}://{BUCKET}", endpoint_url)
        if latency_s:
            endpoint_url = stack.enter_context(proxy_process(endpoint_url, latency_s=latency_s))
        os.environ.update(environment_of(endpoint_url))
        yield endpoint_url


def compare(kind: str, endpoint_url: str, folder: Path, *, rounds: int) -> str:
    """Run all arms in turns, workload by workload; returns the table and the control below it."""
    arms = list(s3_arms(endpoint_url) if kind == "S3" else gcs_arms(endpoint_url))
    rows = {arm.name: [arm.name] for arm in arms}
    controls = []
    for workload in WORKLOADS:
        actions = {arm.name: partial(arm.run, workload, folder) for arm in arms}
        timings = measure.interleave(actions, rounds=rounds, control=OURS)
        wall = {name: [timing.wall_s for timing in of_arm] for name, of_arm in timings.items()}
        for arm in arms:
            rate = np.median([BIG_BYTES / MB / one for one in wall[arm.name]])
            own_cpu_s = np.median(arm.own_cpu_s[workload][1:]) / BIG_BYTES * 1e9
            of_limit = measure.ratio(wall[LIMIT], wall[arm.name]).median
            rows[arm.name] += [f"{rate:.0f}", f"{of_limit:.2f}", f"{own_cpu_s:.1f}"]
        controls.append(f"{measure.ratio(wall[OURS], wall[OURS + measure.AGAIN]):.2f}")
    header = [""]
    for workload in WORKLOADS:
        header += [f"{workload}, MB/s", "of the limit", "CPU s per GB"]
    table = measure.markdown_table(header, list(rows.values()))
    return f"{table}\n\nMedians. A/A control, scaletrain over itself, column by column: {', '.join(controls)}."


# --- The arms -----------------------------------------------------------------------------------------------------


def s3_arms(endpoint_url: str) -> Iterator[Arm]:
    """All that speaks to S3."""
    import s3fs

    path = f"/{BUCKET}/{{}}"
    yield bare_http_arm(endpoint_url, method="PUT", upload=path, download=path)
    yield fsspec_arm("s3fs", s3fs.S3FileSystem(skip_instance_cache=True, endpoint_url=endpoint_url))
    yield boto3_arm(endpoint_url)
    if importlib.util.find_spec("awscrt"):
        yield crt_arm(endpoint_url)
    if importlib.util.find_spec("obstore"):
        from obstore.store import S3Store

        allow_http = {"client_options": {"allow_http": True}}
        yield obstore_arm(S3Store(BUCKET, endpoint=endpoint_url, region="us-east-1", **allow_http))
    storage.configure("s3://any", {"endpoint_url": endpoint_url})
    yield our_arm(f"s3://{BUCKET}")


def gcs_arms(endpoint_url: str) -> Iterator[Arm]:
    """All that speaks to GCS, and can be sent to an emulator of it."""
    storage.configure("gs://any", {"endpoint_url": endpoint_url, "token": "anon"})
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # a question that the server does not know
    import gcsfs

    upload = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={{}}"
    download = f"/storage/v1/b/{BUCKET}/o/{{}}?alt=media"
    yield bare_http_arm(endpoint_url, method="POST", upload=upload, download=download)
    yield fsspec_arm("gcsfs", gcsfs.GCSFileSystem(skip_instance_cache=True, endpoint_url=endpoint_url, token="anon"))
    yield google_arm(endpoint_url)
    yield our_arm(f"gs://{BUCKET}")


def our_arm(url: str) -> Arm:
    """What scaletrain does."""
    return Arm(
        OURS,
        lambda path, key: storage.upload_file(path, f"{url}/{key}"),
        lambda key, path: storage.download_file(f"{url}/{key}", path),
        lambda folder, key: storage.upload_folder(folder, f"{url}/{key}", max_workers=THREADS),
        lambda key, folder: storage.download_folder(f"{url}/{key}", folder, max_workers=THREADS),
    )


def fsspec_arm(name: str, file_system: Any) -> Arm:
    """A file system of fsspec as it comes."""
    return Arm(
        name,
        lambda path, key: file_system.put_file(str(path), f"{BUCKET}/{key}"),
        lambda key, path: file_system.get_file(f"{BUCKET}/{key}", str(path)),
        lambda folder, key: file_system.put(
            [str(folder / each) for each in small_names()], [f"{BUCKET}/{key}/{each}" for each in small_names()]
        ),
        lambda key, folder: file_system.get(
            [f"{BUCKET}/{key}/{each}" for each in small_names()], [str(folder / each) for each in small_names()]
        ),
    )


def boto3_arm(endpoint_url: str) -> Arm:
    """boto3's transfer manager as it comes."""
    import boto3

    s3 = boto3.client("s3", endpoint_url=endpoint_url)
    return file_by_file(
        "boto3",
        lambda path, key: s3.upload_file(str(path), BUCKET, key),
        lambda key, path: s3.download_file(BUCKET, key, str(path)),
    )


def crt_arm(endpoint_url: str) -> Arm:
    """The transfer manager that boto3 takes where the CRT is installed; boto3 itself would insist on HTTPS."""
    import botocore.session
    from s3transfer.crt import (
        BotocoreCRTCredentialsWrapper,
        BotocoreCRTRequestSerializer,
        CRTTransferManager,
        create_s3_crt_client,
    )

    session = botocore.session.get_session()
    credentials = BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
    client = create_s3_crt_client("us-east-1", crt_credentials_provider=credentials, use_ssl=False)
    settings = {"region_name": "us-east-1", "endpoint_url": endpoint_url}
    manager = CRTTransferManager(client, BotocoreCRTRequestSerializer(session, settings))
    return file_by_file(
        "boto3, CRT",
        lambda path, key: manager.upload(str(path), BUCKET, key).result(),
        lambda key, path: manager.download(BUCKET, key, str(path)).result(),
    )


def google_arm(endpoint_url: str) -> Arm:
    """google-cloud-storage: its transfer manager for a big file, and one request for a small one."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client, transfer_manager

    client = Client(project=None, credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoint_url})
    bucket = client.bucket(BUCKET)
    in_threads = {"chunk_size": PIECE_BYTES, "max_workers": THREADS, "worker_type": transfer_manager.THREAD}
    arm = file_by_file(
        "google-cloud",
        lambda path, key: bucket.blob(key).upload_from_filename(str(path)),
        lambda key, path: bucket.blob(key).download_to_filename(str(path)),
    )
    arm.send = lambda path, key: transfer_manager.upload_chunks_concurrently(str(path), bucket.blob(key), **in_threads)
    arm.fetch = lambda key, path: transfer_manager.download_chunks_concurrently(
        bucket.blob(key), str(path), crc32c_checksum=False, **in_threads
    )
    return arm


def obstore_arm(store: Any) -> Arm:
    """obstore: a multipart upload of its own, and ranges that threads write to the file."""
    import obstore

    def fetch(key: str, path: Path) -> None:
        size_bytes = obstore.head(store, key)["size"]
        with path.open("wb") as file:

            def piece(start: int) -> None:
                stop = min(start + PIECE_BYTES, size_bytes)
                os.pwrite(file.fileno(), obstore.get_range(store, key, start=start, end=stop), start)

            each_of(range(0, size_bytes, PIECE_BYTES), piece)

    def send(path: Path, key: str) -> None:
        obstore.put(store, key, path, chunk_size=PIECE_BYTES, max_concurrency=THREADS)

    return file_by_file("obstore", send, fetch)


def bare_http_arm(endpoint_url: str, *, method: str, upload: str, download: str) -> Arm:
    """What the server and Python's sockets give: pieces that are objects of their own, and ranges."""
    netloc = urlsplit(endpoint_url).netloc
    binary = {"Content-Type": "application/octet-stream"}

    def ask(verb: str, pattern: str, key: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        connection = http.client.HTTPConnection(netloc)
        connection.request(verb, pattern.format(quote(key, safe="")), body=body, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status < 300, (answer.status, data[:300])
        return data

    def send(file: Path, key: str) -> None:
        with file.open("rb") as opened:

            def piece(start: int) -> None:
                ask(method, upload, f"{key}-{start}", os.pread(opened.fileno(), 4 * PIECE_BYTES, start), binary)

            each_of(range(0, file.stat().st_size, 4 * PIECE_BYTES), piece)

    def fetch(key: str, file: Path) -> None:
        size_bytes = BIG_BYTES if key == "big" else SMALL_BYTES
        with file.open("wb") as opened:

            def piece(start: int) -> None:
                headers = {"Range": f"bytes={start}-{min(start + PIECE_BYTES, size_bytes) - 1}"}
                os.pwrite(opened.fileno(), ask("GET", download, key, None, headers), start)

            each_of(range(0, size_bytes, PIECE_BYTES), piece)

    arm = file_by_file(LIMIT, lambda file, key: ask(method, upload, key, file.read_bytes(), binary), fetch)
    arm.send = send
    return arm


def file_by_file(name: str, send: Callable[[Path, str], Any], fetch: Callable[[str, Path], None]) -> Arm:
    """An arm that moves a folder's files in threads."""
    return Arm(
        name,
        send,
        fetch,
        lambda folder, key: each_of(small_names(), lambda each: send(folder / each, f"{key}/{each}")),
        lambda key, folder: each_of(small_names(), lambda each: fetch(f"{key}/{each}", folder / each)),
    )


def each_of(items: Any, action: Callable[[Any], None]) -> None:
    """Do something with all items, eight at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(action, items))


def small_names() -> list[str]:
    """The names of the small files."""
    return [f"{number:02d}.bin" for number in range(SMALL_FILES)]


def write_files(folder: Path) -> None:
    """Write the files that go up, of random bytes, and the folder for those that come down."""
    generator = np.random.default_rng(0)
    (folder / "small").mkdir()
    (folder / "small-down").mkdir()
    (folder / "big").write_bytes(generator.bytes(BIG_BYTES))
    for name in small_names():
        (folder / "small" / name).write_bytes(generator.bytes(SMALL_BYTES))


if __name__ == "__main__":
    main()

"""How long a rank's part of a checkpoint takes to a bucket that is some way off, beside Ray Train's own upload.

    python benchmarks/upload.py [--write benchmarks/results/upload.md]

The bucket answers each request after 30 ms, and takes 100 MB/s on each connection, as S3 does. Bytes and memory are the
same for all, the file is in the page cache:

    one connection   the bytes in one request: what a connection gives
    scaletrain       store_shard: hashed twice (whole file and each 8 MiB), in parts, eight at a time
    Ray Train        what `ray.train.report(checkpoint=...)` calls in a worker: pyarrow copies files, no checksums

The server runs on the same cores as the client. Takes some three minutes.
"""

import argparse
import http.client
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import measure
from scaletrain import checkpoint, storage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bucket_servers import environment_of, fast_s3_process, make_bucket

MB = 10**6
LATENCY_S, CONNECTION_MB_S = 0.03, 100.0
BUCKET = "benchmark"
ONE, OURS, RAYS = "one connection", "scaletrain", "Ray Train"


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=10, help="how often each arm runs (default: %(default)s)")
    parser.add_argument("--size-mb", type=int, default=400, help="bytes of one rank (default: %(default)s)")
    arguments = parser.parse_args()
    machine = measure.machine("ray", "pyarrow", "boto3")
    with (
        tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder,
        fast_s3_process(latency_s=LATENCY_S, connection_mb_s=CONNECTION_MB_S) as endpoint_url,
    ):
        make_bucket(f"s3://{BUCKET}", endpoint_url)
        os.environ.update(environment_of(endpoint_url))
        arms = make_arms(endpoint_url, Path(folder), size_bytes=arguments.size_mb * MB)
        timings = measure.interleave(arms, rounds=arguments.rounds, control=OURS)
    report = table_of(timings, size_mb=arguments.size_mb)
    measure.publish(f"# Storing a rank's part of a checkpoint in a bucket\n\n{machine}\n\n{report}", arguments.write)


def make_arms(endpoint_url: str, folder: Path, *, size_bytes: int) -> dict[str, Callable[[], None]]:
    """The three ways for the same bytes."""
    from pyarrow.fs import S3FileSystem
    from ray.train._internal.storage import _pyarrow_fs_copy_files  # what workers call to persist a checkpoint

    data = np.random.default_rng(0).bytes(size_bytes)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "shard").write_bytes(data)
    fd = os.memfd_create("benchmark")
    os.truncate(fd, size_bytes)
    memory = memoryview(np.memmap(f"/proc/self/fd/{fd}", dtype=np.uint8, mode="r+")).cast("B")
    memory[:] = data
    storage.configure(f"s3://{BUCKET}", {"endpoint_url": endpoint_url})
    rays = S3FileSystem(endpoint_override=endpoint_url, region="us-east-1", access_key="testing", secret_key="testing")

    def one() -> None:
        connection = http.client.HTTPConnection(urlsplit(endpoint_url).netloc)
        connection.request("PUT", f"/{BUCKET}/one", body=data)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200, answer.status

    def ours() -> None:
        image = Path(f"/proc/self/fd/{fd}")
        checkpoint.store_shard(f"s3://{BUCKET}/ours", "shard", image, image=memory, header_bytes=1000)

    def ray_train() -> None:
        _pyarrow_fs_copy_files(str(folder / "checkpoint"), f"{BUCKET}/rays", destination_filesystem=rays)

    return {ONE: one, OURS: ours, RAYS: ray_train}


def table_of(timings: dict[str, list[measure.Timing]], *, size_mb: int) -> str:
    """The rates of all arms, and how many times as fast scaletrain is."""
    walls = {name: [one.wall_s for one in found] for name, found in timings.items()}
    rows = [
        [
            name,
            f"{measure.interval(walls[name]).median:.2f}",
            f"{size_mb / measure.interval(walls[name]).median:.0f}",
            f"{measure.ratio(walls[RAYS], walls[name]):.2f}",
            f"{np.median([one.cpu_s for one in timings[name]]):.2f}",
        ]
        for name in (ONE, OURS, RAYS)
    ]
    header = [f"{size_mb} MB", "s", "MB/s", "times as fast as Ray Train", "CPU s of the client"]
    control = measure.ratio(walls[OURS], walls[OURS + measure.AGAIN])
    return (
        f"{measure.markdown_table(header, rows)}\n\n{len(walls[OURS])} rounds, medians with 95% intervals; a request "
        f"waits {1e3 * LATENCY_S:.0f} ms, {CONNECTION_MB_S:.0f} MB/s a connection. CPU with the server's. A/A control, "
        f"scaletrain over itself: {control:.2f}. Load {os.getloadavg()[0]:.1f} after the last arm."
    )


if __name__ == "__main__":
    main()

"""The peers' readers, each as its own documentation recommends for streaming from a bucket; runs in their environment.

    PEERS/bin/python benchmarks/streamed/peers.py '{"task": "paced", "arm": "WebDataset", ...}'
    PEERS/bin/python benchmarks/streamed/peers.py write CONTENT.npz FOLDER

All have two worker processes (one a core) with PyTorch's default of two batches ahead each, and shuffle. `write` makes
the four peers' files of arrays input_ids and labels: 1,024 rows (8 MB before compression) a file, so that there are
files enough to be shared out. What a run has anyway before it reads, the imports, is not counted.
"""

import importlib
import json
import sys
import tarfile
from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3  # noqa: F401 -- imported by the peers where they use it, which is not to be measured
import numpy as np
import torch
from consumer import ROWS_A_STEP, Reading, Step, main

MOSAIC, LITDATA, DATASETS, WEBDATASET = "MosaicML Streaming", "LitData", "HF datasets", "WebDataset"
PACKAGES = {
    MOSAIC: ("streaming",),
    LITDATA: ("litdata",),
    DATASETS: ("datasets", "torchdata.stateful_dataloader", "s3fs"),
    WEBDATASET: ("webdataset",),
}
NUM_WORKERS = 2
SHARD_ROWS = 1024
SHUFFLE_BUFFER = 1000  # rows; what the guides of HF datasets and WebDataset use


def mosaic(reading: Reading) -> Generator[Step, None, None]:
    """StreamingDataset and its loader, with its default of no compression: the bandwidth is not bounded here."""
    import streaming

    dataset = streaming.StreamingDataset(
        remote=f"{reading.url}/mosaic",
        local=reading.cache,
        shuffle=True,
        shuffle_seed=reading.seed,
        batch_size=ROWS_A_STEP,
    )
    for stream in dataset.streams:  # forked workers would share the connection that is open, and mix up their answers
        stream._downloader.clean_up()
    for batch in streaming.StreamingDataLoader(dataset, batch_size=ROWS_A_STEP, num_workers=NUM_WORKERS):
        yield Step(batch["input_ids"], batch["labels"])


def lit(reading: Reading) -> Generator[Step, None, None]:
    """StreamingDataset and its loader; chunks of zstd."""
    import litdata
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # this server has no TLS, and no option says so
    dataset = litdata.StreamingDataset(
        input_dir=f"{reading.url}/litdata",
        cache_dir=reading.cache,
        shuffle=True,
        seed=reading.seed,
        storage_options={"endpoint_url": reading.endpoint_url},
    )
    for batch in litdata.StreamingDataLoader(dataset, batch_size=ROWS_A_STEP, num_workers=NUM_WORKERS):
        yield Step(batch["input_ids"], batch["labels"])


def hugging_face(reading: Reading) -> Generator[Step, None, None]:
    """Parquet over s3fs, a shuffle buffer, and torchdata's StatefulDataLoader, which its guide names for resuming."""
    import datasets
    from torchdata.stateful_dataloader import StatefulDataLoader

    dataset = datasets.load_dataset(
        "parquet",
        data_files=[f"{reading.url}/parquet/{name}" for name in names(reading, "parquet")],
        split="train",
        streaming=True,
        cache_dir=reading.cache,
        storage_options={"client_kwargs": {"endpoint_url": reading.endpoint_url}},
    )
    dataset = dataset.shuffle(seed=reading.seed, buffer_size=SHUFFLE_BUFFER).with_format("torch")
    for batch in StatefulDataLoader(dataset, batch_size=ROWS_A_STEP, num_workers=NUM_WORKERS):
        yield Step(batch["input_ids"], batch["labels"])


def web(reading: Reading) -> Generator[Step, None, None]:
    """Tar files of arrays through curl, which is how it opens HTTP."""
    import webdataset as wds

    bucket = reading.url.removeprefix("s3://")
    urls = [f"pipe:curl -s -L -f {reading.endpoint_url}/{bucket}/tar/{name}" for name in names(reading, "tar")]
    rows = (
        wds.WebDataset(urls, shardshuffle=len(urls), seed=reading.seed)
        .shuffle(SHUFFLE_BUFFER)
        .decode()
        .to_tuple("input_ids.npy", "labels.npy")
        .batched(ROWS_A_STEP)
    )
    for input_ids, labels in wds.WebLoader(rows, batch_size=None, num_workers=NUM_WORKERS):
        yield Step(input_ids, labels)


# ---- files ---------------------------------------------------------------------------------------------------------


def write(content: Path, folder: Path) -> None:
    """Write the same rows in every format."""
    with np.load(content) as arrays:
        columns = {name: arrays[name] for name in ("input_ids", "labels")}
    write_mosaic(columns, folder / "mosaic")
    write_litdata(columns, folder / "litdata")
    for kind in ("parquet", "tar"):
        (folder / kind).mkdir()
    for start in range(0, len(columns["labels"]), SHARD_ROWS):
        part = {name: array[start : start + SHARD_ROWS] for name, array in columns.items()}
        write_parquet(part, folder / "parquet" / file_name(start, "parquet"))
        write_tar(part, folder / "tar" / file_name(start, "tar"))


def write_mosaic(columns: dict[str, Any], folder: Path) -> None:
    """Shards of MDS."""
    import streaming

    kinds = {name: f"ndarray:int32:{array.shape[1]}" for name, array in columns.items()}
    limit = SHARD_ROWS * sum(array[0].nbytes for array in columns.values())
    with streaming.MDSWriter(out=str(folder), columns=kinds, size_limit=limit) as out:
        for row in range(len(columns["labels"])):
            out.write({name: array[row] for name, array in columns.items()})


def write_litdata(columns: dict[str, Any], folder: Path) -> None:
    """Chunks of tensors."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=SHARD_ROWS, compression="zstd")
    for row in range(len(columns["labels"])):
        writer[row] = {name: torch.from_numpy(array[row]) for name, array in columns.items()}
    writer.done()
    writer.merge()


def write_parquet(columns: dict[str, Any], path: Path) -> None:
    """A Parquet file of lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: list(array) for name, array in columns.items()}), path, compression="zstd")


def write_tar(columns: dict[str, Any], path: Path) -> None:
    """A tar file with two entries a row, in NumPy's format."""
    with tarfile.open(path, "w") as archive:
        for row in range(len(columns["labels"])):
            for name, array in columns.items():
                buffer = BytesIO()
                np.save(buffer, array[row])
                entry = tarfile.TarInfo(f"{row:06d}.{name}.npy")
                entry.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(entry, buffer)


def names(reading: Reading, ending: str) -> list[str]:
    """The files of a format that lists none itself."""
    return [file_name(start, ending) for start in range(0, reading.num_rows, SHARD_ROWS)]


def file_name(start: int, ending: str) -> str:
    """The name of the file that begins with a row."""
    return f"{start // SHARD_ROWS:05d}.{ending}"


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        for package in PACKAGES[json.loads(sys.argv[1])["arm"]]:
            importlib.import_module(package)
        main({MOSAIC: mosaic, LITDATA: lit, DATASETS: hugging_face, WEBDATASET: web})

"""A small committed checkpoint of two parameters, written by any number of ranks."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Extent, FileRecord, Manifest
from scaletrain.layout import RunLayout

SHAPES = {"embed": (40, 10), "norm": (7,)}
VALUES = {name: np.arange(np.prod(shape), dtype=np.float32) + 0.5 for name, shape in SHAPES.items()}


@dataclass(frozen=True)
class Slice:
    """A range of one flattened fp32 tensor, shape [length]."""

    kind: str
    name: str
    offset: int
    values: npt.NDArray[np.float32]


def write_shard(checkpoint_url: str, file_name: str, slices: Sequence[Slice]) -> FileRecord:
    """Store slices as one rank's file of a checkpoint."""
    layout = checkpoint.lay_out([Extent(each.kind, each.name, each.offset, each.values.size) for each in slices])
    image = b"".join([layout.header, *(each.values.tobytes() for each in slices)])
    with tempfile.NamedTemporaryFile() as file:
        file.write(image)
        file.flush()
        return checkpoint.store_shard(
            checkpoint_url, file_name, Path(file.name), image=memoryview(image), header_bytes=len(layout.header)
        )


def save(run: RunLayout, step: int, *, world_size: int = 2, parent: int | None = None, attempt: int = 1) -> Manifest:
    """Commit a checkpoint of two parameters, dealt in even shares to `world_size` writers."""
    url = run.checkpoint(step)
    records = []
    for rank in range(world_size):
        slices = []
        for name, values in VALUES.items():
            start, stop = rank * len(values) // world_size, (rank + 1) * len(values) // world_size
            slices += [
                Slice(kind, name, start, sign * values[start:stop]) for kind, sign in (("fp32", 1), ("exp_avg", -1))
            ]
        records.append(write_shard(url, f"rank-{rank:05d}.safetensors", slices))
    manifest = Manifest(
        step=step,
        samples_seen=step * 8,
        attempt=attempt,
        world_size=world_size,
        zero_stage=2,
        precision="fp32",
        dataset_url="bucket/data/tiny",
        model_url="bucket/models/tiny",
        ledger_hash="0" * 64,
        parent_step=parent,
        created="2026-01-01T00:00:00+00:00",
        parameters=SHAPES,
        scalars={"optimizer_step": step},
        files=tuple(records),
    )
    return checkpoint.commit(url, manifest)


def flip_one_bit_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next read from storage come with one bit that is not what is stored; all later ones are sound."""
    read_bytes = storage.read_bytes

    def read(url: str, *, start: int = 0, length: int | None = None) -> bytes:
        monkeypatch.setattr(storage, "read_bytes", read_bytes)
        found = bytearray(read_bytes(url, start=start, length=length))
        found[len(found) // 2] ^= 1
        return bytes(found)

    monkeypatch.setattr(storage, "read_bytes", read)

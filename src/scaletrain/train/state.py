"""Carrying an engine's state into a checkpoint and back, at any number of workers and any ZeRO stage."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
import torch.distributed as dist

from scaletrain import checkpoint
from scaletrain.checkpoint import Checkpoint, FileRecord, Manifest, Slice
from scaletrain.errors import CheckpointError, ScaletrainError
from scaletrain.layout import RunLayout
from scaletrain.train import zero

_PARALLEL_READS = 8


@dataclass(frozen=True)
class Position:
    """How far a run has come; `step` counts updates, `samples_seen` packed rows, tokens are real ones (no padding)."""

    step: int
    samples_seen: int
    tokens: int
    supervised_tokens: int
    ledger_hash: str
    parent_step: int | None


def save(engine: Any, run: RunLayout, position: Position, *, attempt: int, model_url: str, precision: str) -> Manifest:
    """Write and commit a checkpoint; every rank must call it, and every rank returns the committed manifest.

    Each rank writes its own slices; rank 0 writes the manifest once all have reported theirs. Raises the first
    rank's error on every rank, so that none waits for one that failed.
    """
    url = run.checkpoint(position.step)
    rank, world_size = engine.global_rank, engine.world_size
    zero.create_moments(engine)
    file_name = f"attempt-{attempt:04d}.rank-{rank:05d}-of-{world_size:05d}.safetensors"
    outcome: FileRecord | ScaletrainError
    try:
        outcome = checkpoint.write_shard(url, file_name, list(_slices(engine, rank, world_size)))
    except ScaletrainError as error:
        outcome = error
    records = _raise_first(_gather(outcome, world_size))
    manifest = Manifest(
        step=position.step,
        samples_seen=position.samples_seen,
        attempt=attempt,
        world_size=world_size,
        zero_stage=engine.zero_optimization_stage(),
        precision=precision,
        model_url=model_url,
        ledger_hash=position.ledger_hash,
        parent_step=position.parent_step,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parameters=zero.parameter_shapes(engine),
        scalars={
            "optimizer_step": zero.optimizer_step(engine),
            "tokens": position.tokens,
            "supervised_tokens": position.supervised_tokens,
        },
        files=tuple(records),
    )
    committed: Manifest | ScaletrainError | None = None
    if rank == 0:
        try:
            committed = checkpoint.commit(url, manifest)
        except ScaletrainError as error:
            committed = error
    committed = _broadcast(committed, world_size)
    if isinstance(committed, ScaletrainError):
        raise committed
    assert committed is not None
    return committed


@torch.no_grad()
def load(engine: Any, source: Checkpoint) -> Position:
    """Fill this rank's masters, moments and counters from a checkpoint; every rank must call it.

    Raises CheckpointError where the checkpoint is of another model, or a checksum does not match.
    """
    _check_same_model(engine, source)
    zero.create_moments(engine)

    def fill(fragment: zero.Fragment) -> None:
        for kind, view in fragment.views.items():
            values = source.read(kind, fragment.name, fragment.offset, fragment.length)
            view.copy_(torch.from_numpy(values))

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for _ in pool.map(fill, zero.fragments(engine)):
            pass
    zero.set_optimizer_step(engine, int(source.manifest.scalars["optimizer_step"]))
    zero.publish_weights(engine)
    return position_of(source.manifest)


def position_of(manifest: Manifest) -> Position:
    """The position that a run has after resuming from a checkpoint."""
    return Position(
        step=manifest.step,
        samples_seen=manifest.samples_seen,
        tokens=int(manifest.scalars["tokens"]),
        supervised_tokens=int(manifest.scalars["supervised_tokens"]),
        ledger_hash=manifest.ledger_hash,
        parent_step=manifest.step,
    )


def _slices(engine: Any, rank: int, world_size: int) -> Iterator[Slice]:
    """What this rank writes: its own fragments, or an even share of each where every rank holds all."""
    for fragment in zero.fragments(engine):
        start, stop = 0, fragment.length
        if fragment.replicated:
            start, stop = rank * fragment.length // world_size, (rank + 1) * fragment.length // world_size
        if start == stop:
            continue
        for kind, view in fragment.views.items():
            values = view[start:stop].detach().to("cpu", torch.float32).contiguous().numpy()
            yield Slice(kind=kind, name=fragment.name, offset=fragment.offset + start, values=values)


def _check_same_model(engine: Any, source: Checkpoint) -> None:
    here, there = zero.parameter_shapes(engine), dict(source.manifest.parameters)
    if here == there:
        return
    problems = [f"{name} is not in the checkpoint" for name in here.keys() - there.keys()]
    problems += [f"{name} is only in the checkpoint" for name in there.keys() - here.keys()]
    problems += [
        f"{n} has shape {here[n]}, in the checkpoint {there[n]}" for n in here.keys() & there if here[n] != there[n]
    ]
    shown = "; ".join(sorted(problems)[:3]) + ("" if len(problems) <= 3 else f"; and {len(problems) - 3} more")
    raise CheckpointError(
        f"{source.url} is of another model: {shown}. Give the run another name, or its old model back"
    )


def _gather(value: FileRecord | ScaletrainError, world_size: int) -> list[FileRecord | ScaletrainError]:
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, value)
    return gathered


def _broadcast(value: Manifest | ScaletrainError | None, world_size: int) -> Manifest | ScaletrainError | None:
    if world_size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _raise_first(outcomes: list[FileRecord | ScaletrainError]) -> list[FileRecord]:
    records = []
    for outcome in outcomes:
        if isinstance(outcome, ScaletrainError):
            raise outcome
        records.append(outcome)
    return records

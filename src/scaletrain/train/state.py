"""Carrying a checkpoint into an engine, at any number of workers and any ZeRO stage; `saver` carries it out."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist

from scaletrain.checkpoint import Checkpoint, Manifest
from scaletrain.errors import CheckpointError, DamagedError, NotFoundError, ScaletrainError
from scaletrain.train import zero
from scaletrain.train.saver import Position

_PARALLEL_READS = 8


def load(engine: Any, source_url: str, manifest: Manifest) -> DamagedError | None:
    """Fill every rank's masters, moments and counters from a checkpoint; every rank must call it.

    Returns, on every rank, the first rank's complaint about damaged bytes; the engine's state is then of no use until
    another checkpoint has been loaded. Raises what else went wrong, as a checkpoint of another model, on every rank.
    """
    outcome: ScaletrainError | None = None
    try:
        _fill(engine, Checkpoint(source_url, manifest))
    except NotFoundError as error:
        outcome = DamagedError(str(error))
    except ScaletrainError as error:
        outcome = error
    outcomes = [outcome]
    if engine.world_size > 1:
        outcomes = [None] * engine.world_size
        dist.all_gather_object(outcomes, outcome)
    failures = [each for each in outcomes if each is not None]
    damaged = [each for each in failures if isinstance(each, DamagedError)]
    for failure in failures:
        if failure not in damaged:
            raise failure
    if damaged:
        return damaged[0]
    zero.publish_weights(engine)
    return None


@torch.no_grad()
def _fill(engine: Any, source: Checkpoint) -> None:
    """Fill this rank's masters, moments and counters; no other rank has to."""
    _check_same_model(engine, source)
    zero.create_moments(engine)

    def fill(fragment: zero.Fragment) -> None:
        for kind, view in fragment.views.items():
            values = source.read(kind, fragment.name, fragment.offset, fragment.length)
            view.copy_(torch.from_numpy(values))

    with zero.writable_moments(engine), ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for _ in pool.map(fill, zero.fragments(engine)):
            pass
    zero.set_optimizer_step(engine, int(source.manifest.scalars["optimizer_step"]))


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

"""The proof of a run, from the bucket alone: every committed step once, no sample lost or repeated, checkpoints whole.

What is compared: the ledger's lines with their hash chain; each line's samples with the order of the data, which is a
function of seed, epoch and index; every byte of every checkpoint with its checksums; its place in the chain with the
hash in its manifest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scaletrain import checkpoint, storage
from scaletrain.attempts import Attempts, read_attempts
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.config_file import load_config
from scaletrain.data.order import sample_ids
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.errors import CheckpointError, NotFoundError, ScaletrainError
from scaletrain.layout import RunLayout, step_of
from scaletrain.log import progress
from scaletrain.metrics import read_attempt_records, read_records
from scaletrain.run_inputs import inputs_of
from scaletrain.runs import check_exists
from scaletrain.train import ledger

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Verdict:
    """What was proved of a run, and what does not hold.

    `steps` are committed; `done_again` counts those that were trained a second time after something was lost;
    `checkpoints` are the steps whose every byte verified; `world_sizes` is who trained how many steps, in order.
    """

    run: str
    steps: int
    samples: int
    epochs: float
    attempts: int
    done_again: int
    world_sizes: tuple[tuple[int, int], ...]
    checkpoints: tuple[int, ...]
    problems: tuple[str, ...]

    def record(self) -> dict[str, object]:
        """The verdict as plain data."""
        return asdict(self)


def verify_run(run: RunLayout) -> Verdict:
    """Verify a run; raises NotFoundError where there is none, and StorageError where it cannot be read."""
    check_exists(run)
    config, known = load_config(run.config), read_attempts(run)
    newest = checkpoint.newest_whole(run)
    steps = newest.step if newest else 0
    problems: list[str] = []
    lines = {int(str(line["step"])): line for line in read_records(run.ledger, last_step_of=known.last_step_of)}
    hashes = _check_chain(lines, steps, problems)
    rows = _check_order(run, lines, steps, config, newest, problems)
    metrics = {int(str(line["step"])): line for line in read_records(run.metrics, last_step_of=known.last_step_of)}
    problems += [f"step {step}: has no line of metrics" for step in range(1, steps + 1) if step not in metrics]
    checkpoints = _check_checkpoints(run, known, hashes, config, problems)
    samples = steps * config.train.global_batch_size
    return Verdict(
        run=run.url,
        steps=steps,
        samples=samples,
        epochs=samples / rows if rows else 0.0,
        attempts=len(known.claimed),
        done_again=_count_done_again(run, lines),
        world_sizes=tuple(_world_sizes(metrics, steps)),
        checkpoints=checkpoints,
        problems=tuple(problems),
    )


def verdict_display(found: Verdict) -> "RenderableType":
    """A verdict as a person reads it."""
    from rich.text import Text

    sizes = ", ".join(f"{count} steps on {size} workers" for size, count in found.world_sizes)
    lines = [
        found.run,
        f"  {found.steps} steps committed in {found.attempts} attempts ({sizes}); {found.done_again} were done again",
        f"  {found.samples} samples, {found.epochs:.2f} passes over the data",
        f"  checkpoints whole, byte for byte: {', '.join(map(str, found.checkpoints)) or 'none'}",
    ]
    if found.problems:
        lines += [f"  NOT SO: {problem}" for problem in found.problems]
    else:
        lines.append("  proved: every step once, no sample lost or repeated, every checkpoint whole")
    return Text("\n".join(lines))


def _check_chain(lines: Mapping[int, Mapping[str, Any]], steps: int, problems: list[str]) -> dict[int, str]:
    """Check each line against the one before; returns the hash after each step, as it ought to be."""
    hashes, previous = {0: ledger.GENESIS}, ledger.GENESIS
    for step in range(1, steps + 1):
        line = lines.get(step)
        if line is None:
            problems.append(f"step {step}: the ledger has no line of it")
            break
        expected = ledger.next_line(previous, step, np.asarray(line["samples"], dtype=np.int64)).hash
        if line["hash"] != expected:
            problems.append(f"step {step}: its samples do not fit its hash in the ledger; one of them was changed")
        previous = hashes[step] = str(line["hash"])
    return hashes


def _check_order(
    run: RunLayout,
    lines: Mapping[int, Mapping[str, Any]],
    steps: int,
    config: Config,
    newest: Manifest | None,
    problems: list[str],
) -> int:
    """Check each step's samples against their place in the order of the data; returns the rows of one pass."""
    if newest is None:
        return 0
    index = _load_index(run, newest, problems)
    if index is None:
        return 0
    rows, size = index.splits["train"].rows, config.train.global_batch_size
    for step in range(1, steps + 1):
        if step in lines:
            start = (step - 1) * size
            ids = sample_ids(rows, index.row_group_rows, seed=config.seed, start=start, stop=start + size)
            found = lines[step]["samples"]
            if list(found) != ids.tolist():
                wrong = sorted(set(ids.tolist()) ^ set(found))
                problems.append(f"step {step}: has not the samples of its place in the order; they differ in {wrong}")
    return rows


def _load_index(run: RunLayout, newest: Manifest, problems: list[str]) -> DatasetIndex | None:
    try:
        return load_index(inputs_of(run, newest).dataset_url)
    except ScaletrainError as error:
        problems.append(f"the order of the samples cannot be checked, for the dataset cannot be read: {error}")
        return None


def _check_checkpoints(
    run: RunLayout, known: Attempts, hashes: Mapping[int, str], config: Config, problems: list[str]
) -> tuple[int, ...]:
    """Read every checkpoint that counts to its last byte; returns those that are whole."""
    steps = sorted(step for name in storage.list_folders(run.checkpoints) if (step := step_of(name)) is not None)
    whole = []
    with progress(unit="checkpoints") as display:
        for step in display.track(steps, total=len(steps), description="reading checkpoints"):
            try:
                manifest = checkpoint.verify(run.checkpoint(step))
            except NotFoundError:
                continue  # without a manifest, it was never committed
            except CheckpointError as error:
                problems.append(f"checkpoint of step {step}: {error}")
                continue
            if not known.counts(manifest.attempt, step):
                continue
            if step in hashes and manifest.ledger_hash != hashes[step]:
                problems.append(
                    f"checkpoint of step {step}: was saved with another ledger than the one in {run.ledger}"
                )
            if manifest.samples_seen != step * config.train.global_batch_size:
                problems.append(f"checkpoint of step {step}: states {manifest.samples_seen} samples")
            whole.append(step)
    return tuple(whole)


def _count_done_again(run: RunLayout, lines: Mapping[int, object]) -> int:
    """How many steps the ledger has from more than one attempt, counted each time."""
    return sum(len(records) for records in read_attempt_records(run.ledger).values()) - len(lines)


def _world_sizes(metrics: Mapping[int, Mapping[str, Any]], steps: int) -> Iterator[tuple[int, int]]:
    """Runs of steps with the same number of workers: (workers, steps)."""
    size, count = 0, 0
    for step in range(1, steps + 1):
        now = int(metrics.get(step, {}).get("world_size", 0))
        if now != size and count:
            yield size, count
            count = 0
        size, count = now, count + 1
    if count:
        yield size, count

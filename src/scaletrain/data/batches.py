"""Which samples each rank gets in each step, and the batches that it is handed.

A step's samples are the next global_batch_size positions of the order, cut into micro batches; micro batch j goes to
rank j % world_size. Where they do not divide, a rank with nothing left to do in a round runs a filler: a micro batch of
that step again, with weight 0. So a step is the same set of samples on any number of workers.

Shapes: B rows, T tokens of a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaletrain.data.order import sample_ids
from scaletrain.data.rows import Int32s, Int64s, Samples, read_samples
from scaletrain.data.shards import DatasetIndex
from scaletrain.errors import DataError

RUN_TOKENS = 128 * 1024


@dataclass(frozen=True)
class MicroBatch:
    """Rows for one forward pass: sample_ids [B], the other arrays [B, T], as in Samples.

    `weight` is 1.0, or 0.0 for a filler, which has the arrays of a real micro batch and counts no tokens. `reference`:
    float32 [documents of all rows], what preference training compares each of them with; None until it is put there.
    """

    sample_ids: Int64s
    input_ids: Int32s
    labels: Int32s
    positions: Int32s
    documents: Int32s
    corpora: Int32s
    tokens: int
    supervised_tokens: int
    weight: float
    reference: npt.NDArray[np.float32] | None = None

    @property
    def pairs(self) -> int:
        """How many pairs of documents there are, in a dataset of pairs; a filler has none."""
        return int(self.documents.max(axis=1).sum()) // 2 if self.weight else 0


@dataclass(frozen=True)
class StepBatch:
    """One rank's part of a global batch: as many micro batches as every other rank has; `step` counts from 0."""

    step: int
    micro_batches: tuple[MicroBatch, ...]


@dataclass(frozen=True)
class ReadPlan:
    """What one rank reads: its share of the steps from `first_step` up to `stop_step`, counted from 0.

    Workers that share rows (scaling.sequence_parallel) have one plan, and are one rank here.
    """

    dataset_url: str
    index: DatasetIndex
    seed: int
    global_batch_size: int
    micro_batch_size: int
    world_size: int
    rank: int
    first_step: int
    stop_step: int

    def __post_init__(self) -> None:
        assert self.global_batch_size % self.micro_batch_size == 0, "the micro batch must divide the global batch"
        assert 0 <= self.rank < self.world_size and 0 <= self.first_step <= self.stop_step

    @property
    def rounds(self) -> int:
        """The number of micro batches that every rank runs per step."""
        return -(-self.micro_batches_per_step // self.world_size)

    @property
    def micro_batches_per_step(self) -> int:
        return self.global_batch_size // self.micro_batch_size


@dataclass(frozen=True)
class Run:
    """Consecutive micro batches of one rank, read at once; counted from 0 at the plan's first step."""

    start: int
    stop: int


def runs(plan: ReadPlan) -> list[Run]:
    """Cut all that a rank reads into runs of about 128k tokens, and of at least one micro batch."""
    total = (plan.stop_step - plan.first_step) * plan.rounds
    size = max(1, RUN_TOKENS // (plan.micro_batch_size * plan.index.seq_len))
    return [Run(start, min(start + size, total)) for start in range(0, total, size)]


def run_sample_ids(plan: ReadPlan, run: Run) -> Int64s:
    """Return the ids of a run's samples in reading order, shape [micro batches * micro_batch_size]."""
    first_step, stop_step = run.start // plan.rounds, -(-run.stop // plan.rounds)
    ids = sample_ids(
        plan.index.splits["train"].rows,
        plan.index.row_group_rows,
        seed=plan.seed,
        start=(plan.first_step + first_step) * plan.global_batch_size,
        stop=(plan.first_step + stop_step) * plan.global_batch_size,
    )
    dealt = ids.reshape(-1, plan.micro_batches_per_step, plan.micro_batch_size)[:, _hand(plan)]
    skipped = first_step * plan.rounds
    return dealt.reshape(-1, plan.micro_batch_size)[run.start - skipped : run.stop - skipped].reshape(-1)


def read_run(plan: ReadPlan, run: Run) -> Samples:
    """Fetch and decode a run's samples; raises DataError, StorageError."""
    return read_samples(plan.dataset_url, plan.index, split="train", ids=run_sample_ids(plan, run))


def deal(plan: ReadPlan, read: Iterable[tuple[Run, Samples]]) -> Iterator[StepBatch]:
    """Turn a rank's runs, as they were read, into its steps.

    The sample ids are compared with the order; raises DataError where they differ.
    """
    micro_batches = _micro_batches(plan, read)
    for step in range(plan.first_step, plan.stop_step):
        yield StepBatch(step, tuple(next(micro_batches) for _ in range(plan.rounds)))


def micro_batch(samples: Samples, start: int, stop: int, *, weight: float = 1.0) -> MicroBatch:
    """Return the rows from start to stop, without a copy."""
    rows = slice(start, stop)
    return MicroBatch(
        sample_ids=samples.sample_ids[rows],
        input_ids=samples.input_ids[rows],
        labels=samples.labels[rows],
        positions=samples.positions[rows],
        documents=samples.documents[rows],
        corpora=samples.corpora[rows],
        tokens=int(samples.tokens[rows].sum()) if weight else 0,
        supervised_tokens=int(samples.supervised_tokens[rows].sum()) if weight else 0,
        weight=weight,
    )


def _hand(plan: ReadPlan) -> Int64s:
    """Return which of a step's micro batches the rank runs, one a round; the last may be a filler."""
    places = np.arange(plan.rounds) * plan.world_size + plan.rank
    return np.where(places < plan.micro_batches_per_step, places, plan.rank % plan.micro_batches_per_step)


def _micro_batches(plan: ReadPlan, read: Iterable[tuple[Run, Samples]]) -> Iterator[MicroBatch]:
    size = plan.micro_batch_size
    for run, samples in read:
        if not np.array_equal(samples.sample_ids, expected := run_sample_ids(plan, run)):
            step = plan.first_step + run.start // plan.rounds
            raise DataError(
                f"{plan.dataset_url}: rank {plan.rank} was handed other samples from step {step} on than the order "
                f"says: {samples.sample_ids[:4].tolist()}... instead of {expected[:4].tolist()}...; nothing of that "
                "step is used. Start again; if it happens again, this version of Ray does not keep the order"
            )
        for number in range(run.start, run.stop):
            is_real = number % plan.rounds * plan.world_size + plan.rank < plan.micro_batches_per_step
            start = (number - run.start) * size
            yield micro_batch(samples, start, start + size, weight=1.0 if is_real else 0.0)

"""Reading a dataset for training: tokens per second, time to the first batch, CPU, and what a training step waits.

    python benchmarks/data.py [--write benchmarks/results/data.md]

Each arm reads every row of the same shard once, in batches of 8 rows, with all that it needs already running:

    bare pyarrow            the limit: Parquet to Arrow in this process, files in order, nothing else
    stock Ray Data          read_parquet + iter_torch_batches, of input_ids and labels alone, files in order
    scaletrain, steps_local ours in this process: in training order, all arrays of a step, sample ids checked
    scaletrain, steps_ray   ours by Ray Data's tasks

And the time to the first batch of a run that goes on after 10 samples, 10,000 and 10 million, beside a Ray Data that is
read up to there, which is what it offers within an epoch.

Takes some four minutes and 20 MB of the temporary folder. Does not measure a bucket: all files are in memory.
"""

import argparse
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import measure
from scaletrain.data.loader import ReadPlan, steps_local, steps_ray
from scaletrain.data.shards import FORMAT_VERSION, DatasetIndex, Row, row_group_rows, write_index, write_split

SEQ_LEN = 1024
ROWS = 4096
TOKENS = ROWS * SEQ_LEN
MICRO_BATCH_SIZE = 8
GLOBAL_BATCH_SIZE = 32
STEPS = ROWS // GLOBAL_BATCH_SIZE
COMPUTING_S = 0.05
POSITIONS = (10, 10_000, 10_000_000)
LIMIT, STOCK, LOCAL, RAY = "bare pyarrow", "stock Ray Data", "scaletrain, steps_local", "scaletrain, steps_ray"


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=5, help="how often each arm runs (default: %(default)s)")
    arguments = parser.parse_args()
    machine = measure.machine("ray", "pyarrow", "numpy")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        report = compare(folder, write_dataset(folder), rounds=arguments.rounds)
    measure.publish(f"# Reading for training\n\n{machine}\n\n{report}", arguments.write)


def compare(url: str, index: DatasetIndex, *, rounds: int) -> str:
    """Run all arms in turns on a Ray of this machine; returns the report."""
    plan = ReadPlan(url, index, 0, GLOBAL_BATCH_SIZE, MICRO_BATCH_SIZE, 1, 0, first_step=0, stop_step=STEPS)
    arms = [
        Arm(LIMIT, lambda: read_with_pyarrow(url, index)),
        Arm(STOCK, lambda: read_with_stock_ray(url)),
        Arm(LOCAL, lambda: steps_local(plan)),
        Arm(RAY, lambda: steps_ray(plan)),
    ]
    cold_s = {arm.name: first_batch_on_a_new_ray(arm) for arm in arms if arm.name in (STOCK, RAY)}
    with local_ray():
        timings = measure.interleave({arm.name: arm.run for arm in arms}, rounds=rounds, control=RAY)
        return "\n\n".join((throughput(arms, timings, cold_s), waiting(plan), seeking(url, index, rounds=2 * rounds)))


class Arm:
    """One way to read, and what is seen in this process while it is run."""

    def __init__(self, name: str, read: Callable[[], Iterable[object]]) -> None:
        self.name = name
        self.first_s: list[float] = []
        self.own_cpu_s: list[float] = []
        self._read = read

    def run(self) -> None:
        """Read everything."""
        start, own_cpu_s = time.perf_counter(), time.process_time()
        batches = iter(self._read())
        next(batches)
        self.first_s.append(time.perf_counter() - start)
        for _ in batches:
            pass
        self.own_cpu_s.append(time.process_time() - own_cpu_s)


def first_batch_on_a_new_ray(arm: Arm) -> float:
    """Seconds to the first batch where no process that reads has been started yet; one sample."""
    with local_ray():
        arm.run()
    return arm.first_s.pop()


def throughput(arms: list[Arm], timings: dict[str, list[measure.Timing]], cold_s: dict[str, float]) -> str:
    """The table of all arms, and the control below it."""
    wall = {name: [timing.wall_s for timing in of_arm] for name, of_arm in timings.items()}
    rows = [
        [
            arm.name,
            f"{measure.interval([TOKENS / 1e6 / one for one in wall[arm.name]]):.2f}",
            f"{measure.ratio(wall[LIMIT], wall[arm.name]):.2f}",
            f"{measure.ratio(wall[STOCK], wall[arm.name]):.1f}",
            f"{measure.interval(arm.first_s):.2f}",
            f"{cold_s[arm.name]:.1f}" if arm.name in cold_s else "",
            f"{np.median([timing.cpu_s for timing in timings[arm.name]]) / TOKENS * 1e6:.2f}",
            f"{np.median(arm.own_cpu_s) / TOKENS * 1e6:.2f}",
        ]
        for arm in arms
    ]
    header = [
        "",
        "M tokens/s",
        "of the limit",
        "times stock",
        "first batch, s",
        "on a new Ray, s",
        "CPU s per M tokens",
        "in this process",
    ]
    again = measure.ratio(wall[RAY], wall[RAY + measure.AGAIN])
    return (
        f"{measure.markdown_table(header, rows)}\n\n"
        f"Median [95% interval]. A/A control, steps_ray over itself: {again:.2f}."
    )


def waiting(plan: ReadPlan) -> str:
    """What a training loop sees that computes for a while in each step."""
    read = iter(steps_ray(plan))
    next(read)
    waits_s: list[float] = []
    own_cpu_s = time.process_time()
    for _ in range(STEPS - 1):
        time.sleep(COMPUTING_S)
        start = time.perf_counter()
        next(read)
        waits_s.append(time.perf_counter() - start)
    own_cpu_ms = (time.process_time() - own_cpu_s) / len(waits_s) * 1e3
    median_ms, worst_ms = np.percentile(waits_s, (50, 99)) * 1e3
    return (
        f"With {COMPUTING_S * 1e3:.0f} ms of computing in a step of {GLOBAL_BATCH_SIZE * SEQ_LEN:,} tokens, steps_ray "
        f"without anything between it and the loop: a step waits {median_ms:.2f} ms for its batch ({worst_ms:.2f} ms "
        f"in the 99th percentile), and reading takes {own_cpu_ms:.2f} ms of this process's CPU, all threads counted."
    )


def seeking(url: str, index: DatasetIndex, *, rounds: int) -> str:
    """How long the first batch takes by where in the endless order it is."""
    samples_a_step, seeds = 2, itertools.count(1)

    def first_batch(read: Callable[[ReadPlan], Iterator[object]], position: int) -> None:
        step, seed = position // samples_a_step, next(seeds)  # of a new seed's order nothing is known yet
        size = samples_a_step
        next(read(ReadPlan(url, index, seed, size, size, 1, 0, first_step=step, stop_step=step + 100)))

    def skip_with_stock_ray(position: int) -> None:
        import ray

        rows = ray.data.read_parquet(f"{url}/shard-00000.parquet").select_columns(["input_ids", "labels"])
        batches = (batch for _ in iter(int, 1) for batch in rows.iter_torch_batches(batch_size=samples_a_step))
        for _ in range(position // samples_a_step):
            next(batches)
        next(batches)

    def arm(name: str, position: int) -> tuple[str, Callable[[], None]]:
        if name == STOCK:
            return f"{name} {position}", lambda: skip_with_stock_ray(position)
        read = steps_local if name == LOCAL else steps_ray
        return f"{name} {position}", lambda: first_batch(read, position)

    control = f"{LOCAL} {POSITIONS[0]}"
    ours = dict(arm(name, position) for name in (LOCAL, RAY) for position in POSITIONS)
    timings = measure.interleave(ours, rounds=rounds, control=control)
    for name, action in (arm(STOCK, position) for position in POSITIONS[:2]):  # which takes half a minute
        timings[name] = [measure.timed(action) for _ in range(3)]
    wall = {name: [timing.wall_s for timing in of_arm] for name, of_arm in timings.items()}

    def cell(name: str, position: int) -> str:
        found = wall.get(f"{name} {position}")
        return "not run" if found is None else f"{1e3 * measure.interval(found).median:.0f}"

    def growth(name: str) -> str:
        first, *others = (wall[f"{name} {each}"] for each in POSITIONS if f"{name} {each}" in wall)
        return f"{measure.ratio(others[-1], first):.2f}"

    header = ["first batch after, ms", *(f"{position:,} samples" for position in POSITIONS), "last / first"]
    table = measure.markdown_table(
        header, [[name, *(cell(name, each) for each in POSITIONS), growth(name)] for name in (LOCAL, RAY, STOCK)]
    )
    return (
        f"{table}\n\n{rounds} rounds, 3 of stock Ray Data; a dataset of {ROWS:,} rows (10 million samples are "
        f"{10**7 // ROWS:,} epochs). A/A control, steps_local after 10 samples over itself: "
        f"{measure.ratio(wall[control + measure.AGAIN], wall[control]):.2f}."
    )


def read_with_pyarrow(url: str, index: DatasetIndex) -> Iterator[object]:
    """Read all columns, a row group at a time, as batches of Arrow."""
    import pyarrow.parquet as pq

    for shard in index.splits["train"].shards:
        with pq.ParquetFile(f"{url}/{shard.name}", memory_map=True) as file:
            yield from file.iter_batches(batch_size=MICRO_BATCH_SIZE)


def read_with_stock_ray(url: str) -> Iterator[object]:
    """Read what a stock loop would train on, as tensors."""
    import ray

    dataset = ray.data.read_parquet(f"{url}/shard-00000.parquet").select_columns(["input_ids", "labels"])
    return iter(dataset.iter_torch_batches(batch_size=MICRO_BATCH_SIZE))


@contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of this machine that writes nothing over the report."""
    import ray
    from ray.data import DataContext

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()


def write_dataset(url: str) -> DatasetIndex:
    """Write one shard of rows whose tokens are as frequent as words are (Zipf's law), half of them supervised."""
    generator = np.random.default_rng(0)

    def rows() -> Iterator[Row]:
        for _ in range(ROWS):
            input_ids = np.minimum(generator.zipf(1.1, size=SEQ_LEN), 49_151).astype(np.int32)
            supervised = np.repeat(generator.random(SEQ_LEN // 16) < 0.5, 16)
            supervised[[0, SEQ_LEN // 2]] = False
            labels = np.where(supervised, input_ids, -100).astype(np.int32)
            yield Row(input_ids, labels, (SEQ_LEN // 2, SEQ_LEN // 2), (0, 0))

    split = write_split(rows(), url, split="train", seq_len=SEQ_LEN)
    index = DatasetIndex(
        FORMAT_VERSION, "random", SEQ_LEN, row_group_rows(SEQ_LEN), 0, ("zipf",), "none", {"train": split}
    )
    write_index(url, index)
    return index


if __name__ == "__main__":
    main()

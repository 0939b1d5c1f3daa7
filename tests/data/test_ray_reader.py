"""ray_reader: Ray Data's tasks hand every rank the batches that it would have read itself, in any surroundings."""

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from random_dataset import write_dataset

from commands import descendants
from scaletrain import storage
from scaletrain.data import batches, ray_reader
from scaletrain.data.batches import MicroBatch, ReadPlan, StepBatch, runs
from scaletrain.data.loader import sample_ids, steps_local, steps_ray
from scaletrain.data.shards import DatasetIndex
from scaletrain.errors import DataError

pytestmark = pytest.mark.usefixtures("local_ray")

Dataset = tuple[str, DatasetIndex]
RUN_TOKENS = 7 * 4 * 64  # seven micro batches of four rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    url = str(tmp_path_factory.mktemp("dataset"))
    return url, write_dataset(url, rows=1000, seq_len=64)


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs be a few micro batches, two of them be read here and by each task, and a window be three tasks."""
    monkeypatch.setattr(batches, "RUN_TOKENS", RUN_TOKENS)
    monkeypatch.setattr(ray_reader, "HERE_TOKENS", 2 * RUN_TOKENS)
    monkeypatch.setattr(ray_reader, "TASK_TOKENS", 2 * RUN_TOKENS)
    monkeypatch.setattr(ray_reader, "WINDOW_TASKS", 3)


def assert_same(ours: StepBatch, theirs: StepBatch) -> None:
    assert ours.step == theirs.step and len(ours.micro_batches) == len(theirs.micro_batches)
    for one, other in zip(ours.micro_batches, theirs.micro_batches, strict=True):
        for field in fields(MicroBatch):
            mine, yours = getattr(one, field.name), getattr(other, field.name)
            assert np.array_equal(mine, yours), (ours.step, field.name)
            assert not isinstance(mine, np.ndarray) or (mine.dtype, mine.shape) == (yours.dtype, yours.shape)


def damage_row_group(shard: Path, number: int) -> None:
    """Change one byte of a row group."""
    row_group = pq.read_metadata(shard).row_group(number)
    data = bytearray(shard.read_bytes())
    data[row_group.column(0).data_page_offset + 40] ^= 1
    shard.write_bytes(data)


@pytest.mark.usefixtures("small_runs")
@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_ray_reads_what_a_process_would_read_itself(dataset: Dataset, world_size: int, rank: int) -> None:
    """Every array of every step is the same, over many tasks, windows and the end of an epoch."""
    plan = ReadPlan(*dataset, 3, 16, 4, world_size, rank, first_step=40, stop_step=90)
    assert len(runs(plan)) > 2 + 2 * 2 * ray_reader.WINDOW_TASKS
    for ours, theirs in zip(steps_ray(plan), steps_local(plan), strict=True):
        assert_same(ours, theirs)


@pytest.mark.usefixtures("small_runs")
def test_tasks_begin_once_the_first_run_is_there(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Ray Data takes no time from the first batch, and is not left until that batch is used up."""
    seen: list[str] = []
    read_run, read_window = ray_reader.read_run, ray_reader._read_window

    def reads(*inputs: Any) -> Any:
        seen.append("a run is read")
        return read_run(*inputs)

    def begins(*inputs: Any) -> Any:
        seen.append("tasks begin")
        return read_window(*inputs)

    monkeypatch.setattr(ray_reader, "read_run", reads)
    monkeypatch.setattr(ray_reader, "_read_window", begins)
    steps = steps_ray(ReadPlan(*dataset, 3, 16, 4, 1, 0, first_step=0, stop_step=50))
    next(steps)
    steps.close()
    assert seen[0] == "a run is read" and "tasks begin" in seen


def test_a_plan_without_steps_starts_nothing(dataset: Dataset) -> None:
    """A run that is at its last step already needs no task."""
    assert list(steps_ray(ReadPlan(*dataset, 3, 16, 4, 1, 0, first_step=5, stop_step=5))) == []


@pytest.mark.usefixtures("small_runs")
def test_arrays_can_be_written_to(dataset: Dataset) -> None:
    """They are no views of the object store, which torch would warn of."""
    *_, batch = steps_ray(ReadPlan(*dataset, 3, 16, 4, 1, 0, first_step=0, stop_step=10))
    assert all(batch.micro_batches[0].input_ids.flags[flag] for flag in ("WRITEABLE", "C_CONTIGUOUS"))


@pytest.mark.usefixtures("small_runs")
def test_an_error_in_a_task_is_raised_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The message is ours alone, names the shard, and no log of Ray's surrounds it."""
    index = write_dataset(tmp_path, rows=100)
    steps = steps_ray(ReadPlan(str(tmp_path), index, 3, 16, 4, 1, 0, first_step=0, stop_step=50))
    read_here = [next(steps) for _ in range(3)]  # the first runs, of seven micro batches each
    (tmp_path / "shard-00000.parquet").unlink()
    with pytest.raises(DataError) as caught:
        list(steps)
    assert len(read_here) == 3
    message = f"{tmp_path}/shard-00000.parquet: is missing; put the file back, or remove the folder and run"
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("small_runs")
@pytest.mark.parametrize("here_tokens", [0, 1000 * RUN_TOKENS], ids=["in tasks", "in this process"])
def test_rows_before_a_damaged_row_group_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here_tokens: int
) -> None:
    """What is read ahead of its turn fails in its turn."""
    monkeypatch.setattr(ray_reader, "HERE_TOKENS", here_tokens)
    plan = ReadPlan(str(tmp_path), write_dataset(tmp_path, rows=1000), 3, 16, 4, 1, 0, first_step=0, stop_step=60)
    due = list(steps_local(plan))
    damage_row_group(tmp_path / "shard-00000.parquet", int(due[-1].micro_batches[-1].sample_ids[-1]) // 128)
    given: list[StepBatch] = []
    with pytest.raises(DataError, match=r"its row group . is not the one that was prepared"):
        given.extend(steps_ray(plan))
    assert len(given) > 30
    for ours, theirs in zip(given, due, strict=False):
        assert_same(ours, theirs)


def test_tasks_that_are_killed_while_they_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL, as the kernel gives it where memory runs out: they are done again, and every row comes in its place."""
    monkeypatch.setattr(ray_reader, "HERE_TOKENS", 0)
    index = write_dataset(tmp_path, rows=60_000, seq_len=64)
    plan = ReadPlan(str(tmp_path), index, 3, 200, 200, 1, 0, first_step=0, stop_step=600)
    killed: set[int] = set()
    ended = threading.Event()
    killer = threading.Thread(target=_kill_tasks, args=(killed, ended))
    killer.start()
    try:
        for ours, theirs in zip(steps_ray(plan), steps_local(plan), strict=True):
            assert_same(ours, theirs)
    finally:
        ended.set()
        killer.join()
    assert killed, "no task was seen while it read"


def _kill_tasks(killed: set[int], ended: threading.Event) -> None:
    """Kill the first three processes that are seen to run a task."""
    while len(killed) < 3 and not ended.wait(0.01):
        for process in descendants(os.getpid(), "^ray::ReadRuns")[: 3 - len(killed)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
                killed.add(process.pid)


@pytest.mark.usefixtures("small_runs")
def test_tasks_in_another_order_stop_the_run(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should Ray Data not keep the order of tasks, no sample is trained on in the wrong step."""
    read_window = ray_reader._read_window
    monkeypatch.setattr(ray_reader, "_read_window", lambda *inputs: read_window(*inputs)[::-1])
    with pytest.raises(DataError, match="handed other samples from step 3 on"):
        list(steps_ray(ReadPlan(*dataset, 3, 16, 4, 1, 0, first_step=0, stop_step=50)))


@pytest.mark.usefixtures("small_runs")
def test_nothing_runs_while_the_consumer_computes(dataset: Dataset) -> None:
    """Ray Data's scheduler has left the process once two windows are read, and closing leaves nothing behind."""
    read = steps_ray(ReadPlan(*dataset, 3, 16, 4, 1, 0, first_step=0, stop_step=200))
    for _ in range(5):  # beyond what is read in this process
        next(read)
    busy = ("StreamingExecutor", "read-runs")
    deadline = time.monotonic() + 60
    while any(thread.name.startswith(busy) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, [thread.name for thread in threading.enumerate()]
        time.sleep(0.1)
    read.close()
    with pytest.raises(StopIteration):
        next(read)


@pytest.mark.usefixtures("small_runs")
def test_tasks_connect_to_storage_as_their_caller_did(s3_bucket: str, s3_server: str, tmp_path: Path) -> None:
    """storage.options reach the tasks, which start with none of the caller's environment."""
    options = {"endpoint_url": s3_server, "key": "testing", "secret": "testing"}
    storage.configure(s3_bucket, options)
    try:
        index = write_dataset(f"{s3_bucket}/data", rows=100)
        plan = ReadPlan(f"{s3_bucket}/data", index, 3, 16, 4, 1, 0, first_step=0, stop_step=10)
        for ours, theirs in zip(steps_ray(plan), steps_local(plan), strict=True):
            assert_same(ours, theirs)
    finally:
        storage.configure(s3_bucket, {})


def test_ray_train_workers_read_each_step_once(dataset: Dataset, tmp_path: Path) -> None:
    """Inside a TorchTrainer two workers share every step, though they have taken all of the cluster's CPUs."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def record_ids(settings: dict[str, Any]) -> None:  # nested, as workers cannot import this module
        import ray.train

        from scaletrain.data import ray_reader

        ray_reader.HERE_TOKENS = ray_reader.TASK_TOKENS = 2**17  # one of four runs, so that the others are tasks
        rank = ray.train.get_context().get_world_rank()
        mine = replace(settings["plan"], rank=rank)
        ids = [[micro.sample_ids.tolist() for micro in step.micro_batches if micro.weight] for step in steps_ray(mine)]
        (Path(settings["folder"]) / f"{rank}.json").write_text(json.dumps(ids))

    plan = ReadPlan(*dataset, 3, 16, 4, 2, 0, first_step=0, stop_step=1000)
    assert len(runs(plan)) == 4
    TorchTrainer(
        record_ids,
        train_loop_config={"plan": plan, "folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 2}),
        run_config=RunConfig(name="read", storage_path=str(tmp_path / "ray")),
    ).fit()
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for step, of_step in enumerate(zip(*ranks, strict=True)):
        due = sample_ids(1000, 128, seed=3, start=16 * step, stop=16 * (step + 1))
        assert sorted(i for of_rank in of_step for micro in of_rank for i in micro) == sorted(due.tolist())

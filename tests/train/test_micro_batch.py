"""train/micro_batch.py: as many rows at once as fit, found by forecast and by probe, and kept for the run's life."""

from dataclasses import replace
from pathlib import Path

import pytest

from scaletrain import storage
from scaletrain.config_file import dump_config, load_config
from scaletrain.config_model import ModelSection
from scaletrain.errors import ConfigError
from scaletrain.model.recomputing import LADDER
from scaletrain.model.settings import read_settings
from scaletrain.model.shape import shape_of
from scaletrain.plan.forecast import way_of
from scaletrain.plan.machines import Machines, this_machine
from scaletrain.plan.memory import Amount, Way, forecast_memory
from scaletrain.train.job import Job
from scaletrain.train.micro_batch import first_that_fits, make_a_pass, settle
from tiny import tiny_config, tiny_model_folder


def a_job(folder: Path, *, micro_batch_size: int | str = "auto", gradient_checkpointing: bool | str = False) -> Job:
    """A local job on a tiny model, whose micro batch is not settled."""
    model = folder / "model"
    if not model.exists():
        tiny_model_folder(model)
    described = {"source": str(model), "gradient_checkpointing": gradient_checkpointing}
    config = tiny_config(str(folder), ModelSection.model_validate(described))
    section = config.train.model_copy(update={"micro_batch_size": micro_batch_size, "global_batch_size": 12})
    return Job(
        config=config.model_copy(update={"train": section}),
        dataset_url="data/none",
        model_url=str(model),
        attempt=0,
        total_steps=10,
        device="cpu",
        precision="fp32",
        attention="sdpa",
        reader="local",
    )


def ways(*rows: int) -> list[Way]:
    """Ways that differ in their rows at once."""
    return [Way(stage=2, num_workers=1, micro_batch_size=each, seq_len=64) for each in rows]


def a_forecast(way: Way) -> Amount:
    return Amount(10 * way.micro_batch_size, 20 * way.micro_batch_size)


ROWS = ("train.micro_batch_size",)


def test_by_the_forecast_the_upper_bound_has_to_fit() -> None:
    """Between the bounds nothing is sure, so fewer rows are taken."""
    found = first_that_fits(ways(8, 4, 2, 1), settling=ROWS, forecast=a_forecast, there_bytes=45)
    assert found.micro_batch_size == 2


def test_a_probe_decides_between_the_bounds_and_backs_off() -> None:
    """What cannot fit is not tried; what runs out of memory, or takes too much, makes way for fewer rows."""
    tried: list[int] = []

    def measure(way: Way) -> int | None:
        tried.append(way.micro_batch_size)
        return {4: None, 3: 50, 2: 40}[way.micro_batch_size]

    found = first_that_fits(ways(8, 4, 3, 2, 1), settling=ROWS, forecast=a_forecast, there_bytes=45, measure=measure)
    assert (found.micro_batch_size, tried) == (2, [4, 3, 2])


def test_where_not_one_row_fits_it_is_said_before_the_run() -> None:
    """The message has both numbers, and where to look."""
    with pytest.raises(ConfigError, match=r"^train.micro_batch_size=auto: not even 1 row fits.*scaletrain plan"):
        first_that_fits(ways(2, 1), settling=ROWS, forecast=lambda way: Amount(100, 200), there_bytes=45)


def test_where_recomputing_everything_is_not_enough_it_is_said() -> None:
    """The message has the rows that were given, and how much was recomputed in vain."""
    last = replace(ways(8)[0], gradient_checkpointing=True)
    with pytest.raises(
        ConfigError,
        match=r"^model.gradient_checkpointing=auto: not even 8 rows fit with gradient_checkpointing=true",
    ):
        first_that_fits(
            [last], settling=("model.gradient_checkpointing",), forecast=lambda way: Amount(100, 200), there_bytes=45
        )


def test_on_a_cpu_it_is_at_most_four_rows_that_divide_the_batch(tmp_path: Path) -> None:
    """Twelve rows a step: four at once, on a machine with memory for a tiny model."""
    found = settle(a_job(tmp_path), on_a_worker=lambda choose: choose())
    assert found.train.micro_batch_size == 4
    assert found.train.global_batch_size % found.train.micro_rows == 0


def test_a_resumed_run_keeps_its_number(tmp_path: Path) -> None:
    """The number that was stored is used again, and nothing is probed."""
    job = a_job(tmp_path)
    stored = a_job(tmp_path, micro_batch_size=3).config
    storage.write_text(job.run.config, dump_config(stored))
    assert load_config(job.run.config).train.micro_batch_size == 3

    def must_not(choose: object) -> Way:
        raise AssertionError("a run that has begun was probed")

    assert settle(job, on_a_worker=must_not).train.micro_batch_size == 3


def test_recomputing_is_settled_beside_the_rows(tmp_path: Path) -> None:
    """A tiny model needs none; a run that has begun keeps its rows, and settles how much is recomputed anew."""
    job = a_job(tmp_path, gradient_checkpointing="auto")
    stored = a_job(tmp_path, micro_batch_size=3, gradient_checkpointing=True).config
    storage.write_text(job.run.config, dump_config(stored))
    found = settle(job, on_a_worker=lambda choose: choose())
    assert found.model.gradient_checkpointing is False
    assert found.train.micro_batch_size == 3


def test_on_little_memory_layers_are_recomputed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rows that are given, the least recomputing with which they fit; a little less memory takes more of it."""
    job = a_job(tmp_path, micro_batch_size=12, gradient_checkpointing="auto")
    shape = shape_of(read_settings(job.model_url))
    way = replace(way_of(job.config, this_machine(), num_workers=1), device="cpu", precision="fp32")
    needed = [forecast_memory(shape, replace(way, gradient_checkpointing=step)).on_host.high for step in LADDER]
    for there in (needed[0], needed[1], needed[-1]):
        monkeypatch.setattr(Machines, "usable_host_bytes", property(lambda _, there=there: there))
        found = settle(job, on_a_worker=lambda choose: choose())
        step = LADDER.index(found.model.gradient_checkpointing)
        assert needed[step] <= there
        assert all(each > there for each in needed[:step])


def test_a_number_is_left_alone(tmp_path: Path) -> None:
    """Without auto the configuration is what it was."""
    job = a_job(tmp_path, micro_batch_size=2)
    assert settle(job, on_a_worker=lambda choose: choose()) is job.config


def test_a_probe_leaves_no_gradients_behind(tmp_path: Path) -> None:
    """One full micro batch goes forward and back through the real loss; its gradients are gone at once."""
    from scaletrain.train.micro_batch import probe_model

    job = a_job(tmp_path)
    model = probe_model(job, dict(read_settings(job.model_url)), recomputing="selective")
    make_a_pass(model, rows=2, seq_len=32)
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no CUDA GPU")
def test_on_a_gpu_a_probe_confirms_the_number(tmp_path: Path) -> None:
    """A tiny model fits with all rows of a step at once, and nothing of the probe stays on the GPU."""
    import torch

    job = replace(a_job(tmp_path), device="cuda", precision="bf16")
    square = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    (square @ square).sum().backward()  # cuBLAS keeps its workspace
    before = torch.cuda.memory_allocated()
    found = settle(job, on_a_worker=lambda choose: choose())
    assert found.train.micro_batch_size == 12
    assert torch.cuda.memory_allocated() == before

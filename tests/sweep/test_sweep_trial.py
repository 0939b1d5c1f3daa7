"""sweep.trial: a run in a thread, its points, and the orders that its record gives it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from sweep_configs import sweep_config

from commands import wait_for
from scaletrain.config import Config
from scaletrain.errors import Interrupted, TrainingError
from scaletrain.sweep.records import Facts, Stretch, SweepLayout, TrialRecord, write_trial
from scaletrain.sweep.trial import Meter, TrialWork
from scaletrain.train.trainer import Summary


def test_a_meter_averages_a_loss_over_the_steps_of_each_look() -> None:
    """A point has all losses since the one before, a step that is done again counts once, a skipped one not at all."""
    meter = Meter("loss", every_steps=4, total_steps=10)
    assert [meter.add({"step": step, "loss": float(step)}) for step in (1, 2, 3, 2, 3)] == [{}] * 5
    assert meter.add({"step": 4, "loss": None}) == {4: 2.0}
    assert [meter.add({"step": step, "loss": 1.0}) for step in (5, 6, 7, 8)][-1] == {8: 1.0}
    assert [meter.add({"step": step, "loss": 2.0}) for step in (9, 10)] == [{}, {10: 2.0}]


def test_a_meters_throughput_is_all_tokens_over_all_seconds() -> None:
    """By hand: 200 tokens in 1 + 3 seconds are 50 a second, where the mean of 100 and 33 would be 67."""
    meter = Meter("tokens_per_s", every_steps=2, total_steps=4)
    lines = [{"step": n, "tokens": 100, "step_s": s, "tokens_per_s": 100 / s} for n, s in ((1, 1.0), (2, 3.0))]
    assert [meter.add(line) for line in lines] == [{}, {2: 50.0}]


def test_a_meter_takes_validation_losses_as_they_come() -> None:
    """Only steps that were validated make points."""
    meter = Meter("validation_loss", every_steps=1, total_steps=10)
    assert meter.add({"step": 1, "loss": 2.0}) == {}
    assert meter.add({"step": 2, "loss": 2.0, "validation_loss": 1.5}) == {2: 1.5}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A sweep with one trial, which is asked for nothing."""
    made = sweep_config(
        "{trials: 1, metric: loss, every_steps: 2, parameters: {train.learning_rate: {log: [1.0e-5, 1.0e-2]}}}",
        root=str(tmp_path),
    )
    write_trial(SweepLayout(str(tmp_path), "tiny"), _record())
    return made


def _record() -> TrialRecord:
    return TrialRecord(0, (Stretch("tiny.0000", {"train.learning_rate": 0.004}),), facts=Facts(total_steps=4))


def work_on(config: Config, train_run: Callable[..., Summary]) -> TrialWork:
    assert config.sweep is not None
    return TrialWork(config, config.sweep, 0, train_run=train_run)


def test_a_trial_reports_its_points_and_its_end(config: Config) -> None:
    """The run is an ordinary one with the trial's values, and the last report says that it has finished."""
    seen: list[Config] = []

    def run(run_config: Config, *, on_lines: Callable[[Sequence[bytes]], None], **rest: object) -> Summary:
        seen.append(run_config)
        for step in range(1, 5):
            on_lines([orjson.dumps({"step": step, "loss": 1.0 / step, "cost_usd": 0.1 * step})])
        return Summary("url", 4, 4, 0)

    work = work_on(config, run)
    reports = [work.look() for _ in range(3)]
    assert [each.points for each in reports] == [{2: 0.75}, {4: pytest.approx(0.2916667)}, {}]
    assert [each.outcome for each in reports] == ["", "", "finished"]
    assert reports[-1].facts == Facts(step=4, total_steps=4, cost_usd=0.4)
    assert (seen[0].name, seen[0].train.learning_rate, seen[0].sweep) == ("tiny.0000", 0.004, None)


def test_an_order_in_the_record_stops_the_run(config: Config) -> None:
    """The run is asked to stop as by Ctrl-C, and its end is told."""
    began = threading.Event()

    def run(run_config: Config, *, stop: threading.Event, **rest: object) -> Summary:
        began.set()
        assert stop.wait(30)
        raise Interrupted("stopped at step 3")

    work = work_on(config, run)
    assert began.wait(30)
    layout = SweepLayout(config.storage.root, "tiny")
    write_trial(layout, TrialRecord(0, _record().stretches, order="stop", facts=Facts(total_steps=4)))
    assert work.look().outcome == "interrupted"


def test_the_workers_it_may_have_stand_in_its_record(config: Config) -> None:
    """The run asks for them again and again, and its first step is told, with the workers that make it."""
    layout, granted = SweepLayout(config.storage.root, "tiny"), list[int | None]()
    write_trial(layout, replace(_record(), most_workers=4))

    def run(
        run_config: Config,
        *,
        on_lines: Callable[[Sequence[bytes]], None],
        most_workers: Callable[[], int | None],
        **rest: object,
    ) -> Summary:
        granted.append(most_workers())
        on_lines([orjson.dumps({"step": 1, "loss": 1.0, "world_size": 4})])
        wait_for(lambda: most_workers() == 2, "another number is granted")
        return Summary("url", 4, 4, 0)

    work = work_on(config, run)
    first = work.look()
    assert (first.points, first.facts.world_size, granted) == ({}, 4, [4])
    write_trial(layout, replace(_record(), most_workers=2))
    assert work.look().outcome == "finished"


def test_a_run_that_falls_silent_is_told_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have lost its machines; its next step is told too, though it makes no point of the curve."""
    monkeypatch.setattr("scaletrain.policy.COMING_GRACE_S", 0.5)
    monkeypatch.setattr("scaletrain.sweep.trial._LOOK_S", 0.1)
    goes_on = threading.Event()

    def run(run_config: Config, *, on_lines: Callable[[Sequence[bytes]], None], **rest: object) -> Summary:
        on_lines([orjson.dumps({"step": 1, "loss": 1.0, "world_size": 1})])
        assert goes_on.wait(60)
        on_lines([orjson.dumps({"step": 3, "loss": 1.0, "world_size": 1})])
        return Summary("url", 4, 4, 0)

    work = work_on(config, run)
    assert [work.look().is_silent for _ in range(2)] == [False, True]
    goes_on.set()
    told = work.look()
    assert (told.is_silent, told.facts.step, work.look().outcome) == (False, 3, "finished")


def test_a_clone_of_a_run_without_a_commit_is_declined(config: Config) -> None:
    """The trial goes on as it was."""
    goes: list[str] = []

    def run(run_config: Config, *, stop: threading.Event, **rest: object) -> Summary:
        goes.append(run_config.name)
        if stop.is_set():
            raise Interrupted("stopped")
        return Summary("url", 4, 4, 0)

    wanted = Stretch("tiny.0000.clone-1", {"train.learning_rate": 0.001}, donor="tiny.0001")
    record = TrialRecord(0, _record().stretches, order="clone", next=wanted, facts=Facts(total_steps=4))
    layout = SweepLayout(config.storage.root, "tiny")
    write_trial(layout, record)
    work = work_on(config, run)
    first = work.look()
    write_trial(layout, _record())
    assert (first.declined, work.look().outcome) == (True, "finished")
    assert goes == ["tiny.0000"]


def test_whatever_ends_a_run_is_told(config: Config) -> None:
    """An error of ours by its kind and message, any other by its name too."""

    def never_finite(run_config: Config, **rest: object) -> Summary:
        raise TrainingError("loss was not finite")

    def broken(run_config: Config, **rest: object) -> Summary:
        raise ZeroDivisionError("division by zero")

    told = work_on(config, never_finite).look()
    assert (told.outcome, told.error, told.reason) == ("failed", "TrainingError", "loss was not finite")
    assert work_on(config, broken).look().reason == "ZeroDivisionError: division by zero"

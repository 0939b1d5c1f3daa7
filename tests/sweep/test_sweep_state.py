"""sweep.state and sweep.limits: what reports change, and what is left after a crash."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_configs import sweep_config, trial

from commands import wait_for
from scaletrain.errors import ConfigError, DataError
from scaletrain.sweep import limits, on_tune, space
from scaletrain.sweep.opening import open_sweep
from scaletrain.sweep.records import Facts, Stretch, SweepLayout, read_trials
from scaletrain.sweep.running import _forget_trials, _may_change
from scaletrain.sweep.state import Sweep
from scaletrain.sweep.trial import Report
from scaletrain.train.waiting import Room

ELASTIC = "scaling.workers={min: 1, max: 4}"
RATES = "trials: 4, at_once: 4, metric: loss, parameters: {train.learning_rate: {log: [1.0e-5, 1.0e-2]}}"


def make(root: Path, extra: str = "", *overrides: str, **settings: Any) -> Sweep:
    config = sweep_config(f"{{{RATES}{extra}}}", *overrides, root=str(root))
    assert config.sweep is not None
    return Sweep(
        config, config.sweep, **{"at_once": config.sweep.at_once, "total_steps": lambda values: 80, **settings}
    )


def report(number: int, points: Mapping[int, float], **fields: Any) -> Report:
    facts = Facts(step=max(points, default=0), total_steps=80, step_s=0.1, cost_usd=fields.pop("cost_usd", None))
    return Report.from_json(Report(number, points, facts, **fields).to_json())


def test_another_process_goes_on_where_the_first_was_killed(tmp_path: Path) -> None:
    """Trials that are over stay so, the others are begun again with the same values and their curves, then new ones."""
    first = make(tmp_path)
    assert [first.next_trial() for _ in range(3)] == [0, 1, 2]
    first.take(report(0, {10: 3.0}))
    first.take(report(0, {80: 2.0}, outcome="finished"))
    first.take(report(1, {10: 4.0}))

    second = make(tmp_path)
    assert {number: each.state for number, each in second.trials.items()} == {0: "finished", 1: "waiting", 2: "waiting"}
    assert [second.trials[n].parameters for n in range(3)] == [first.trials[n].parameters for n in range(3)]
    assert second.trials[1].curve == ((10, 4.0),)
    assert [second.next_trial() for _ in range(4)] == [1, 2, 3, None]
    for number in (1, 2, 3):
        second.take(report(number, {80: 1.0}, outcome="finished"))
    assert second.next_trial() == "over" and second.is_over


def test_a_trial_below_its_rung_is_asked_to_stop_in_its_record(tmp_path: Path) -> None:
    """The order stands in the bucket, survives a crash, and ends as a trial that was stopped for that reason."""
    sweep = make(tmp_path, ", scheduler: {kind: asha, grace_steps: 10}")
    for number in range(4):
        sweep.next_trial()
        sweep.take(report(number, {10: float(number)}))
    assert [each.order for each in sweep.trials.values()] == ["", "stop", "stop", "stop"]
    again = make(tmp_path, ", scheduler: {kind: asha, grace_steps: 10}")
    assert again.trials[3].order == "stop"
    again.next_trial()
    again.take(report(3, {}, outcome="interrupted"))
    stored = read_trials(SweepLayout(str(tmp_path), "tiny"))[3]
    assert (stored.state, stored.reason) == ("stopped", "at step 10 it was number 4 of 4; 2 go on")


def test_a_failing_trial_is_begun_again_once_and_then_told(tmp_path: Path) -> None:
    """The sweep goes on; what another start would only meet again is not tried twice."""
    sweep = make(tmp_path)
    sweep.next_trial()
    sweep.next_trial()
    sweep.take(report(0, {}, outcome="failed", reason="never finite", error="TrainingError"))
    assert sweep.trials[0].state == "waiting"
    assert sweep.next_trial() == 0
    sweep.take(report(0, {}, outcome="failed", reason="never finite", error="TrainingError"))
    sweep.take(report(1, {}, outcome="failed", reason="no such model", error="ModelError"))
    assert [(each.state, each.reason) for each in sweep.trials.values()] == [
        ("failed", "never finite"),
        ("failed", "no such model"),
    ]
    assert sweep.next_trial() == 2


def test_a_trial_that_finds_no_machines_waits_while_others_have_them(tmp_path: Path) -> None:
    """Machines that did not come are a failure only where no other trial of the sweep holds them."""
    sweep = make(tmp_path, ", retries: 0")
    sweep.next_trial()
    sweep.next_trial()
    sweep.take(report(1, {}, outcome="failed", reason="no machines", error="ClusterError"))
    assert (sweep.trials[1].state, sweep.trials[1].failures) == ("waiting", 0)
    sweep.take(report(0, {80: 1.0}, outcome="finished"))
    assert sweep.next_trial() == 1
    sweep.take(report(1, {}, outcome="failed", reason="no machines", error="ClusterError"))
    assert sweep.trials[1].state == "failed"


def test_a_trial_whose_data_cannot_be_prepared_has_failed(tmp_path: Path) -> None:
    """The next one is begun in its place."""

    def total_steps(values: space.Values) -> int:
        if values["train.learning_rate"] == first:
            raise DataError("the training split has no rows")
        return 80

    section = sweep_config(f"{{{RATES}}}").sweep
    assert section is not None
    first = space.suggest(section, {}, 0, seed=0)["train.learning_rate"]
    sweep = make(tmp_path, total_steps=total_steps)
    assert sweep.next_trial() == 1
    assert (sweep.trials[0].state, sweep.trials[0].reason) == ("failed", "the training split has no rows")


def test_the_worst_of_a_population_is_ordered_to_become_a_clone(tmp_path: Path) -> None:
    """Its record names the run, the donor and the values; once done, its curve until then is the donor's."""
    pbt = (", scheduler: {kind: pbt, every_steps: 20}", "checkpoint.every_steps=20")
    sweep = make(tmp_path, *pbt)
    for number in range(4):
        sweep.next_trial()
        sweep.take(report(number, {10: 5.0, 20: 1.0 + number}, cost_usd=1.0))
    loser = sweep.trials[3]
    assert loser.order == "clone" and loser.next is not None
    assert (loser.next.run, loser.next.donor) == ("tiny.0003.clone-1", "tiny.0000")

    again = make(tmp_path, *pbt)
    assert again.trials[3].order == "clone"
    done = Stretch(loser.next.run, loser.next.parameters, donor="tiny.0000", step=20, manifest_hash="ab")
    again.take(report(0, {30: 0.9}, cost_usd=2.0))  # the donor trains on while it is cloned
    again.take(report(3, {}, cloned=done, cost_usd=1.0))
    assert again.trials[3].curve == ((10, 5.0), (20, 1.0))
    assert (again.trials[3].run, again.trials[3].order) == ("tiny.0003.clone-1", "")
    again.take(report(3, {40: 0.5}, cost_usd=1.5))
    assert again.trials[3].cost_usd == 1.5  # 1.0 of the first run, and 0.5 of the clone on top of its donor's 1.0
    assert read_trials(SweepLayout(str(tmp_path), "tiny")) == again.trials


def test_leaving_asks_every_trial_at_work_to_save(tmp_path: Path) -> None:
    """None is begun any more, and those that left wait for the next command."""
    sweep = make(tmp_path)
    sweep.next_trial()
    sweep.leave()
    assert read_trials(SweepLayout(str(tmp_path), "tiny"))[0].order == "leave"
    assert sweep.next_trial() == "over"
    sweep.take(report(0, {}, outcome="interrupted"))
    assert (sweep.trials[0].state, sweep.trials[0].order) == ("waiting", "")


def shares(root: Path) -> list[int | None]:
    """How many workers each trial may have, as the bucket has it."""
    return [each.most_workers for each in read_trials(SweepLayout(str(root), "tiny")).values()]


def begins(sweep: Sweep, number: int) -> None:
    wait_for(lambda: sweep.next_trial() == number, f"trial {number} begins")


def test_trials_share_the_workers_and_who_ends_leaves_them_to_the_others(tmp_path: Path) -> None:
    """The first leaves the rest their shares before they begin, and the last has all it may have."""
    sweep = make(tmp_path, "", ELASTIC)
    sweep.share_out(Room(there=6, may_come=6))
    assert sweep.next_trial() == 0
    assert shares(tmp_path) == [2]
    assert [sweep.next_trial() for _ in range(3)] == [1, 2, 3]
    assert shares(tmp_path) == [2, 2, 1, 1]
    assert sweep.workers_wanted == 6
    sweep.take(report(3, {80: 1.0}, outcome="finished"))
    assert shares(tmp_path) == [2, 2, 2, None]
    sweep.take(report(0, {80: 1.0}, outcome="finished"))
    sweep.take(report(1, {80: 1.0}, outcome="finished"))
    assert shares(tmp_path) == [None, None, 4, None]


def test_a_trial_for_which_there_is_no_room_waits(tmp_path: Path) -> None:
    """It begins when machines have come, and who has more than a fair share gives back."""
    sweep = make(tmp_path, "", "scaling.workers={min: 2, max: 4}")
    sweep.share_out(Room(there=3, may_come=3))
    assert [sweep.next_trial(), sweep.next_trial()] == [0, None]
    assert shares(tmp_path) == [3]
    sweep.share_out(Room(there=4, may_come=4))
    assert [sweep.next_trial(), sweep.next_trial()] == [1, None]
    assert shares(tmp_path) == [2, 2]


def test_the_share_of_a_trial_is_lent_while_it_is_being_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for its data with idle machines, and once it begins its share is given back."""
    monkeypatch.setattr("scaletrain.sweep.state._PREPARED_SOON_S", 0.01)
    prepared = threading.Event()
    prepared.set()

    def total_steps(values: space.Values) -> int:
        assert prepared.wait(60)
        return 80

    sweep = make(tmp_path, "", ELASTIC, "sweep.trials=2", "sweep.at_once=2", total_steps=total_steps)
    sweep.share_out(Room(there=4, may_come=4))
    begins(sweep, 0)
    assert shares(tmp_path) == [2]
    prepared.clear()
    assert sweep.next_trial() is None
    assert shares(tmp_path) == [4]
    prepared.set()
    begins(sweep, 1)
    assert shares(tmp_path) == [2, 2]


def test_leaving_does_not_wait_for_a_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is at work is asked at once; the sweep is over when what was begun in its own process has ended."""
    monkeypatch.setattr("scaletrain.sweep.state._PREPARED_SOON_S", 0.01)
    prepared = threading.Event()
    sweep = make(tmp_path, total_steps=lambda values: 80 if prepared.wait(60) else 0)
    assert sweep.next_trial() is None
    sweep.leave()
    assert sweep.next_trial() is None
    prepared.set()
    wait_for(lambda: sweep.next_trial() == "over", "the sweep is over")
    assert sweep.trials[0].state == "waiting"


def test_machines_that_do_not_come_are_not_shared(tmp_path: Path) -> None:
    """A trial that has waited for minutes gets its workers from another one; later the rest is hoped for again."""
    now = [0.0]
    sweep = make(tmp_path, "", ELASTIC, "sweep.trials=2", "sweep.at_once=2", clock=lambda: now[0])
    room = Room(there=4, may_come=8)
    sweep.share_out(room)
    assert [sweep.next_trial(), sweep.next_trial()] == [0, 1]
    sweep.take(report(0, {}))
    now[0] = 179.0
    sweep.share_out(room)
    assert shares(tmp_path) == [4, 4]
    now[0] = 180.0
    sweep.share_out(room)
    assert shares(tmp_path) == [2, 2]
    sweep.take(report(1, {}))
    sweep.share_out(room)
    assert shares(tmp_path) == [4, 4]
    sweep.take(report(0, {}, is_silent=True))
    sweep.share_out(room)
    assert shares(tmp_path) == [2, 2]


def test_shares_are_found_anew_after_a_crash(tmp_path: Path) -> None:
    """What the head that was lost had decided does not bind the next one, which may have other machines."""
    first = make(tmp_path, "", ELASTIC)
    first.share_out(Room(there=8, may_come=8))
    first.next_trial()
    first.next_trial()
    second = make(tmp_path, "", ELASTIC)
    assert shares(tmp_path) == [None, None]
    second.share_out(Room(there=4, may_come=4))
    assert [second.next_trial() for _ in range(4)] == [0, 1, 2, 3]
    assert shares(tmp_path) == [1, 1, 1, 1]


def test_limits_say_what_the_rest_would_need() -> None:
    """Hours and money that are used up, that one trial alone exceeds, or that nobody can count."""
    section = sweep_config(f"{{{RATES}, limit: {{hours: 1}}}}").sweep
    assert section is not None
    trials = {0: trial(0, {40: 1.0}, seconds=1800.0)}
    assert limits.reached(section, trials, seconds=1800, at_once=1) == ""
    told = limits.reached(section, trials, seconds=3600, at_once=2)
    assert told == "sweep.limit.hours=1 is reached; the rest needs some 1.8 hours more"
    slow = {0: replace(trials[0], facts=Facts(4, 80, step_s=90.0))}
    assert "is too little for a single trial" in limits.reached(section, slow, seconds=400, at_once=1)

    section = sweep_config(f"{{{RATES}, limit: {{usd: 2}}}}").sweep
    assert section is not None
    assert "what these machines cost is not known" in limits.reached(section, trials, seconds=1, at_once=1)
    dear = {0: replace(trials[0], facts=Facts(4, 80, cost_usd=0.5))}
    assert "all would some 10" in limits.reached(section, dear, seconds=1, at_once=1)


def test_a_trial_that_failed_before_its_first_step_is_begun_again_by_a_new_command(tmp_path: Path) -> None:
    """What kept it from beginning may be mended; one that had made steps has failed for good."""
    sweep = make(tmp_path, ", retries: 0")
    sweep.next_trial()
    sweep.next_trial()
    sweep.take(report(0, {}, outcome="failed", reason="no such corpus", error="DataError"))
    sweep.take(report(1, {10: 3.0}, outcome="failed", reason="never finite", error="TrainingError"))
    again = make(tmp_path, ", retries: 0")
    assert [each.state for each in again.trials.values()] == ["waiting", "failed"]
    assert again.next_trial() == 0


def test_a_sweep_without_any_step_may_be_given_another_configuration(tmp_path: Path) -> None:
    """Its trials are forgotten and drawn anew; once one has made a step, they would not compare."""
    sweep = make(tmp_path, ", retries: 0")
    sweep.next_trial()
    sweep.take(report(0, {}, outcome="failed", reason="no such corpus", error="DataError"))

    def open_with(weight_decay: str) -> None:
        config = sweep_config(f"{{{RATES}}}", f"train.weight_decay={weight_decay}", root=str(tmp_path))
        open_sweep(config, may_change=_may_change, noun="sweep", parts="trials", forget=_forget_trials)

    open_with("0.1")
    open_with("0.2")
    assert read_trials(SweepLayout(str(tmp_path), "tiny")) == {}
    begun = make(tmp_path)
    begun.next_trial()
    begun.take(report(0, {10: 3.0}))
    with pytest.raises(ConfigError, match="the trials so far would not compare"):
        open_with("0.3")


def test_a_trial_works_in_the_folder_of_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a relative corpus or model is the one that the command would find."""
    config = sweep_config(f"{{{RATES}}}", root=str(tmp_path))
    monkeypatch.chdir("/")
    monkeypatch.setattr(on_tune, "setup_logging", lambda: None)
    monkeypatch.setattr(on_tune, "TrialWork", lambda *_: folders.append(Path.cwd()))
    folders: list[Path] = []
    actor = object.__new__(on_tune.TuneTrial)  # without Tune's own folder, of which Tune makes one for each trial
    assert config.sweep is not None
    actor.setup({"number": 0}, base=config, section=config.sweep, environment={}, folder=str(tmp_path))
    monkeypatch.chdir("/")
    actor.reset_config({"number": 1})
    assert folders == [tmp_path, tmp_path]

"""sweep.results and sweep.report: what a sweep has found, as table, page and configuration."""

from dataclasses import replace
from pathlib import Path

import orjson
from rich.console import Console
from sweep_configs import sweep_config, trial

from scaletrain import storage
from scaletrain.config_file import load_config
from scaletrain.sweep.charts import Axis, Curve, parallel
from scaletrain.sweep.records import Stretch, SweepLayout, TrialRecord
from scaletrain.sweep.report import publish
from scaletrain.sweep.results import importance_of, results_markdown, results_of, results_table

SWEEP = """{trials: 9, metric: loss, parameters: {train.learning_rate: {log: [1.0e-5, 1.0e-2]},
train.warmup_steps: {choice: [0, 5, 10]}}}"""


def some_trials() -> dict[int, TrialRecord]:
    """Nine trials whose loss the learning rate decides, and of which the last was stopped or failed."""
    trials = {}
    for number in range(8):
        values = {"train.learning_rate": 1e-5 * 2**number, "train.warmup_steps": (0, 5, 10)[number % 3]}
        trials[number] = trial(number, {40: 3.0, 80: 2.0 - 0.1 * number}, parameters=values, state="finished")
    values = {"train.learning_rate": 5e-3, "train.warmup_steps": 0}
    trials[8] = trial(8, {40: 0.5}, parameters=values, state="stopped", reason="at step 40 it was | number 9")
    trials[9] = trial(9, {}, parameters=values, state="failed", reason="<b>never finite</b>")
    return trials


def test_trials_that_finished_come_first_and_failed_ones_last() -> None:
    """The best is a trial that ran to its end, though another was stopped at a better value."""
    config = sweep_config(SWEEP)
    assert config.sweep is not None
    found = results_of(config, config.sweep, some_trials())
    assert [each.number for each in found.ranked] == [7, 6, 5, 4, 3, 2, 1, 0, 8, 9]
    assert found.best == 7
    text = results_markdown(found)
    assert "| 7 | 1.3 | 80/80 | finished | 0.00128 | 5 |" in text
    assert "at step 40 it was \\| number 9" in text


def test_what_decides_the_loss_is_what_matters() -> None:
    """Of a parameter that decides and one that does not, the first has the larger share; few trials tell nothing."""
    section = sweep_config(SWEEP).sweep
    assert section is not None
    found = importance_of(section, some_trials())
    assert next(iter(found)) == "train.learning_rate" and abs(sum(found.values()) - 1) < 1e-6
    assert importance_of(section, {n: each for n, each in some_trials().items() if n < 3}) == {}


def test_what_is_published_is_whole_and_the_best_configuration_trains(tmp_path: Path) -> None:
    """best.yaml is a configuration with the best values and no sweep; the page escapes what errors say."""
    config = sweep_config(SWEEP, root=str(tmp_path))
    assert config.sweep is not None
    trials, layout = some_trials(), SweepLayout(str(tmp_path), "tiny")
    clone = Stretch("tiny.0007.clone-1", trials[7].parameters, donor="tiny.0003", step=40, manifest_hash="ab" * 32)
    trials[7] = replace(trials[7], stretches=(*trials[7].stretches, clone))
    publish(layout, config, config.sweep, trials)
    best = load_config(layout.best)
    assert (best.name, best.train.learning_rate, best.sweep) == ("tiny.best", 1e-5 * 2**7, None)
    page = storage.read_text(layout.report)
    assert "<b>never" not in page and "&lt;b&gt;never" in page
    assert page.count('class="run ') == page.count('class="item') == 9 and "clone of" in page
    record = orjson.loads(storage.read_bytes(layout.results("json")))
    assert (record["best"], record["trials"][0]["run"]) == (7, "tiny.0007.clone-1")


def test_a_value_that_a_trial_has_not_leaves_a_gap_in_its_line() -> None:
    """Conditional parameters and names instead of numbers have their places too."""
    axes = [Axis("stage", [1, 3]), Axis("offload", [None, "cpu"]), Axis("loss", [1.0, 2.0])]
    drawn = parallel(axes, [Curve("one", "", 0.0, ()), Curve("two", "", 1.0, ())])
    two, one = (each.split('"')[0].split() for each in drawn.split('data-points="')[1:])
    assert len(one) == 2 and len(two) == 3 and "cpu" in drawn
    assert 'data-label="one\nstage 1\nloss 1"' in drawn


def test_the_terminals_table_cuts_no_value() -> None:
    """In 80 columns too; why a trial failed stands below."""
    config = sweep_config(SWEEP)
    assert config.sweep is not None
    console = Console(width=80)
    with console.capture() as captured:
        console.print(results_table(results_of(config, config.sweep, some_trials())))
    text = captured.get()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    best = next(line for line in text.splitlines() if "80/80" in line)
    assert best.split()[:6] == ["7", "1.3", "80/80", "finished", "0.00128", "5"]
    assert "trial 9 failed: <b>never finite</b>" in text and "importance: train.learning_rate" in text

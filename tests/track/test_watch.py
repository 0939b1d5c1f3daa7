"""watch: what is worth an alert in a run's losses and costs."""

import math

from metric_rows import metrics

from scaletrain.track.watch import CostWatch, Finding, LossWatch


def findings(losses: list[float]) -> list[Finding]:
    watch = LossWatch(factor=1.5)
    return [found for step, loss in enumerate(losses, 1) for found in watch.look(metrics(step, loss=loss).record())]


def test_a_loss_that_falls_and_one_that_jumps_about_are_no_alert() -> None:
    """Noise of a third round a level, and a fall from 8 to 2."""
    assert findings([2 + 6 * math.exp(-step / 40) + (0.7 if step % 2 else -0.7) for step in range(300)]) == []


def test_a_loss_that_climbs_is_told_at_once() -> None:
    """The smoothed loss counts, so it takes some steps."""
    found = findings([2.0] * 100 + [6.0] * 20)
    assert found[0].kind == "diverged" and found[0].text.startswith("step 108: the smoothed loss is 3.11")
    assert found[0].text.endswith("and was 2 at its best")


def test_a_step_that_was_skipped_is_told() -> None:
    """Its loss is null in the metrics, whatever it was."""
    row = {**metrics(5).record(), "loss": None}
    (found,) = LossWatch(factor=1.5).look(row)
    assert found.text == "step 5: the loss or a gradient is not finite; the step was skipped"


def test_steps_that_are_done_again_count_once() -> None:
    """They would weigh twice in the average."""
    watch, row = LossWatch(factor=1.5), metrics(5).record()
    assert [*watch.look(row), *watch.look(row)] == [] and watch.steps == 1


def test_a_forecast_above_the_budget_is_told() -> None:
    """At 0.5 s a step and 36 USD an hour, each step to come costs half a cent."""
    costs = {"cost_usd": 1.0, "usd_per_hour": 36.0}
    for budget, expected in ((2.9, True), (3.1, False), (None, False)):
        watch = CostWatch(budget)
        found = [
            each for step in range(1, 26) for each in watch.look({**metrics(step).record(), **costs}, total_steps=420)
        ]
        assert bool(found) is expected
        if found:
            assert found[0].text == (
                "step 20: at this pace it needs 3.00 USD until step 420, and may cost 2.90; 1.00 are spent"
            )


def test_a_run_whose_cost_is_not_known_is_never_over_its_budget() -> None:
    """Rows have no cost where a machine has no price."""
    watch = CostWatch(0.01)
    assert [each for step in range(1, 50) for each in watch.look(metrics(step).record(), total_steps=99)] == []

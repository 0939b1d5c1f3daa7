"""curves: TensorBoard shows each step once, whatever was done again."""

from pathlib import Path

from metric_rows import metrics

from scaletrain.track.curves import Curves


def test_a_step_that_is_done_again_is_shown_once(tmp_path: Path) -> None:
    """The second attempt goes on from step 2 and hides what the first wrote after it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps, loss in ((range(1, 5), 1.0), (range(3, 7), 2.0)):
        curves = Curves(tmp_path, first_step=steps.start)
        for step in steps:
            curves.add(metrics(step, loss=loss))
        curves.flush()
        curves.close()
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(each.step, each.value) for each in shown.Scalars("loss")] == [
        *((step, 1.0) for step in (1, 2)),
        *((step, 2.0) for step in (3, 4, 5, 6)),
    ]
    assert "mfu" not in shown.Tags()["scalars"]

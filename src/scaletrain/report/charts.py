"""The report's charts: which figures are drawn over steps, tokens and time, for several runs at once."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from scaletrain.metric_columns import Columns, Floats
from scaletrain.page.lines import Chart, Format, Line, Mark, line_chart
from scaletrain.report.evaluations import Evaluated
from scaletrain.report.series import Series, evenly, finite, smoothed, stretch_of, with_peaks
from scaletrain.run_history import ENDS, AttemptStory, History

Axis = Literal["step", "tokens", "time"]
AXES: tuple[Axis, ...] = get_args(Axis)

_POINTS = 480  # of a line: more than a chart has pixels across
_MOST_DOTS = 60
_POINTS_OF_ALL = 3_000  # of all runs' lines in one chart, which keeps a page below 2 MB
_UNITS = ((48 * 3600.0, "days", 86400.0), (2 * 3600.0, "hours", 3600.0), (180.0, "minutes", 60.0))


def learning(histories: Sequence[History], evaluated: Sequence[Evaluated]) -> str:
    """Losses by step, tokens and time; learning rate and gradients; perplexity as it was evaluated."""
    draw = partial(_drawn, histories)
    drawn = []
    for axis in AXES:
        drawn.append(draw("Training loss", _column("loss"), axis=axis, kind=f"by-{axis}"))
        validation = _column("validation_perplexity")
        drawn.append(draw("Validation perplexity", validation, axis=axis, kind=f"by-{axis}", smooth=False, dots=True))
    drawn += [
        line_chart(_evaluation(histories, evaluated)),
        draw("Learning rate", _column("learning_rate"), smooth=False, from_zero=True),
        draw("Gradient norm", _column("grad_norm"), log=True, note="before clipping"),
    ]
    return _grid(drawn)


def speed(histories: Sequence[History]) -> str:
    """Throughput, utilisation, memory, and what a step waits for."""
    draw = partial(_drawn, histories, from_zero=True)
    return _grid(
        [
            draw("Throughput", _column("tokens_per_s"), note="tokens a second, all workers"),
            draw("MFU", _column("mfu"), shown="percent", note="of the devices' peak"),
            draw("Memory", _column("memory_bytes"), shown="bytes", smooth=False, note="of rank 0"),
            draw("Waiting for data", _share("data_wait_s"), shown="percent", note="share of each step"),
            draw("Checkpoint stall", _column("checkpoint_stall_s"), shown="seconds", smooth=False),
            draw("Length of a step", _column("step_s"), shown="seconds"),
        ]
    )


def over_time(histories: Sequence[History]) -> str:
    """Workers and cost since the run began, with what happened marked."""
    unit, seconds = _unit(histories)
    marks = [
        Mark(number, (story.ended - history.began) / seconds, f"{_prefix(histories, history)}{happened(story)}")
        for number, history in enumerate(histories)
        for story in history.attempts
        if story.end in ("lost", "regrouped", "failed", "killed")
    ]
    workers = [
        Line(number, history.summary.name, *_workers(history, seconds), kind="level")
        for number, history in enumerate(histories)
    ]
    cost = [
        Line(number, history.summary.name, *_shortened(_cost(history, seconds), histories, peaks=False).points())
        for number, history in enumerate(histories)
    ]
    return _grid(
        [
            line_chart(Chart("Workers", unit, workers, shown="integer", from_zero=True, marks=marks)),
            line_chart(Chart("Cost", unit, cost, shown="dollars", from_zero=True, marks=marks)),
        ]
    )


def happened(story: AttemptStory) -> str:
    """What ended an attempt, in a line."""
    lost = f", {story.lost_steps} steps lost" if story.lost_steps else ""
    return f"attempt {story.attempt}: {ENDS[story.end]}{lost}"


# ---- which lines ---------------------------------------------------------------------------------------------------


def _grid(charts: Sequence[str]) -> str:
    drawn = "".join(charts)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _drawn(
    histories: Sequence[History],
    title: str,
    values_of: Callable[[Columns], Floats],
    *,
    axis: Axis = "step",
    kind: str = "",
    shown: Format = "number",
    smooth: bool = True,
    dots: bool = False,
    log: bool = False,
    from_zero: bool = False,
    note: str = "",
) -> str:
    """Draw what is worked out of each line: as it is, and smoothed where that says more."""
    unit, seconds = _unit(histories)
    lines: list[Line] = []
    for number, history in enumerate(histories):
        series = finite(Series(_places(history, axis, seconds), values_of(history.lines)))
        name, over = history.summary.name, stretch_of(series) if smooth else 1
        peaks = _shortened(series, histories, peaks=True).points()
        if over == 1:
            lines.append(Line(number, name, *peaks, kind="dots" if dots and len(peaks[0]) <= _MOST_DOTS else "steady"))
        else:
            mean = _shortened(smoothed(series, over=over), histories, peaks=False)
            lines += [Line(number, f"{name}, each step", *peaks, kind="raw"), Line(number, name, *mean.points())]
    marks = list(_resumes(histories)) if axis == "step" else []
    place = unit if axis == "time" else axis
    return line_chart(Chart(title, place, lines, shown, log, from_zero, marks, note), kind=kind)


def _places(history: History, axis: Axis, seconds: float) -> Floats:
    """Where each step stands along an axis."""
    if axis == "tokens":
        return np.nancumsum(history.lines["tokens"])
    if axis == "time":
        return (history.lines["time"] - history.began) / seconds
    return history.lines.steps.astype(np.float64)


def _column(name: str) -> Callable[[Columns], Floats]:
    """The values as they were written."""
    return lambda lines: lines[name]


def _share(name: str) -> Callable[[Columns], Floats]:
    """The share of a step's time that went into something."""
    return lambda lines: np.divide(lines[name], lines["step_s"], where=lines["step_s"] > 0, out=np.zeros(len(lines)))


def _shortened(series: Series, histories: Sequence[History], *, peaks: bool) -> Series:
    most = min(_POINTS, _POINTS_OF_ALL // len(histories))
    return with_peaks(series, most=most) if peaks else evenly(series, most=most // 2)


def _resumes(histories: Sequence[History]) -> Iterator[Mark]:
    """Where each attempt after the first went on."""
    for number, history in enumerate(histories):
        for before, story in pairwise(history.attempts):
            if story.from_step is not None:
                label = f"{_prefix(histories, history)}attempt {story.attempt} went on from step {story.from_step}; "
                yield Mark(number, float(story.from_step), f"{label}{happened(before)}")


def _workers(history: History, seconds: float) -> tuple[list[float], list[float]]:
    """How many workers trained, as levels: none between two attempts."""
    xs, ys = [0.0], [0.0]
    for story in history.attempts:
        own = history.by_attempt.get(story.attempt)
        if own is None or story.workers is None:
            continue
        trained = (float(own["time"][0] - own["step_s"][0]), float(own["time"][-1]))
        xs += [(moment - history.began) / seconds for moment in trained]
        ys += [float(story.workers), 0.0]
    return (xs, ys) if len(xs) > 1 else ([], [])


def _cost(history: History, seconds: float) -> Series:
    """What the run had cost at each line that was ever written, also by work that was lost."""
    empty = np.empty(0)
    times = np.concatenate([empty, *(own["time"] for own in history.by_attempt.values())])
    costs = np.concatenate([empty, *(own["cost_usd"] for own in history.by_attempt.values())])
    order = np.argsort(times, kind="stable")
    return finite(Series((times[order] - history.began) / seconds, costs[order]))


def _evaluation(histories: Sequence[History], evaluated: Sequence[Evaluated]) -> Chart:
    lines = [
        Line(number, history.summary.name, [p.step for p in found.points], [p.perplexity for p in found.points], "dots")
        for number, (history, found) in enumerate(zip(histories, evaluated, strict=True))
    ]
    return Chart("Perplexity, evaluated", "step", lines, note="all held-out answers")


def _unit(histories: Sequence[History]) -> tuple[str, float]:
    """In what to count the time of all runs, and how many seconds that is."""
    longest = max((history.time.wall_s for history in histories), default=0.0)
    return next(((name, size) for bound, name, size in _UNITS if longest >= bound), ("seconds", 1.0))


def _prefix(histories: Sequence[History], history: History) -> str:
    return f"{history.summary.name}, " if len(histories) > 1 else ""

"""page.lines: charts that can be read without their script, and in which nobody's words are markup."""

import math
import re
from dataclasses import replace

import pytest

from scaletrain.page import page
from scaletrain.page.bars import Stack, stacks
from scaletrain.page.lines import Chart, Line, Mark, line_chart, written
from scaletrain.page.svg import linear_ticks

CHART = Chart("Loss", "step", [Line(0, "a", [1, 2, 3], [3.0, 2.0, 1.0]), Line(1, "b", [1, 3], [2.5, 0.5])])


def paths(html: str) -> list[str]:
    return re.findall(r'<g class="run [^>]*><path d="([^"]*)"', html)


def test_a_chart_says_what_it_shows() -> None:
    """For those who cannot see it: the range, and where each line ends."""
    shown = line_chart(CHART)
    assert 'aria-label="Loss by step: between 0.5 and 3; a ends at 1; b ends at 0.5"' in shown
    assert [path.count("L") for path in paths(shown)] == [2, 1]


def test_a_missing_value_breaks_the_line() -> None:
    """A step whose loss was not finite is a gap, not a straight line."""
    (path,) = paths(line_chart(Chart("x", "step", [Line(0, "a", [1, 2, 3, 4], [1, 2, math.nan, 3])])))
    assert path.count("M") == 2 and "nan" not in path


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_a_chart_of_nothing_is_left_out(values: list[float]) -> None:
    """No empty axes."""
    assert line_chart(Chart("x", "step", [Line(0, "a", list(range(len(values))), values)])) == ""


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [1e-12, 1e12], [0.0, 1.0], [-3.0, -1.0, 2.0]])
def test_values_of_any_size_can_be_drawn(values: list[float], log: bool) -> None:
    """One value, equal ones, tiny, huge and negative ones; a logarithmic chart leaves out what has no logarithm."""
    shown = line_chart(replace(CHART, lines=[Line(0, "a", list(range(len(values))), values)], log=log))
    assert "nan" not in shown and "inf" not in shown
    assert ('<path d="M' in shown) == (not log or max(values) > 0)


def test_levels_are_drawn_as_steps() -> None:
    """Four workers are four until there are two."""
    (path,) = paths(line_chart(Chart("Workers", "hours", [Line(0, "a", [0, 1, 2], [4, 2, 2], "level")])))
    assert path.count("H") == 2


def test_words_of_strangers_are_no_markup() -> None:
    """Names of runs, labels of marks and of bars are text."""
    evil = '"><script>alert(1)</script>'
    chart = replace(CHART, title=evil, note=evil, lines=[Line(0, evil, [1, 2], [1, 2])], marks=[Mark(0, 1, evil)])
    shown = line_chart(chart) + stacks([Stack(evil, [("k", 1.0)], evil)], {"k": evil}, show=str)
    assert "<script" not in shown and '">&lt;' not in shown.replace('"&gt;', "")


def test_only_the_page_s_own_script_may_run() -> None:
    """The policy names it by its hash; pages without charts have none."""
    with_charts = page("t", [line_chart(CHART)], footer="", charts=True).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', with_charts)
    assert policy is not None and "default-src 'none'" in policy[1] and "script-src 'sha256-" in policy[1]
    assert "unsafe-inline" not in policy[1].replace("style-src 'unsafe-inline'", "")
    assert "<script" not in page("t", [], footer="").decode()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.1, 0.13), (-5, 7), (0, 1e9), (3.999, 4.001)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    """Two to five of them."""
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


@pytest.mark.parametrize(
    ("value", "shown", "text"),
    [
        (0.1234, "percent", "12.3%"),
        (12.5, "dollars", "$12.50"),
        (0.00123, "dollars", "$0.0012"),
        (1.5e9, "bytes", "1.5 GB"),
        (25_000, "number", "25k"),
        (2.5e6, "number", "2.5M"),
        (0.001, "number", "0.001"),
        (1.25, "seconds", "1.25 s"),
    ],
)
def test_values_are_written_with_their_unit(value: float, shown: str, text: str) -> None:
    """Short enough for an axis."""
    assert written(value, shown) == text  # type: ignore[arg-type]


def test_bars_tell_their_parts() -> None:
    """The longest bar fills the width, and the legend has what is there only."""
    rows = [Stack("one", [("a", 30.0), ("b", 10.0)], "40 s"), Stack("two", [("a", 20.0), ("b", 0.0)], "20 s")]
    shown = stacks(rows, {"a": "work", "b": "wait", "c": "never"}, show=lambda amount: f"{amount:g} s")
    assert 'aria-label="one: work 30 s, wait 10 s"' in shown and 'aria-label="two: work 20 s"' in shown
    assert "width:75.000%" in shown and "width:50.000%" in shown
    assert "never" not in shown

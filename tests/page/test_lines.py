"""page.lines, page.bars and page.ranges: can be read without their script, and nobody's words are markup in them."""

import math
import re
from dataclasses import replace

import pytest

from scaletrain.page import page
from scaletrain.page.bars import Stack, stacks
from scaletrain.page.lines import Chart, Line, Mark, legend, line_chart, written
from scaletrain.page.ranges import Ranged, ranges
from scaletrain.page.svg import Scale, linear_ticks

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


def test_places_are_named_and_none_between_them() -> None:
    """Eight workers and four are as far apart as four and two, where the axis is of logarithms."""
    lines = [Line(0, "a", [2, 4, 8], [1.0, 0.9, 0.5], "dots", [(0.9, 1.1), (0.8, 1.0), (0.4, 0.6)])]
    shown = line_chart(Chart("x", "workers", lines, places=[2, 4, 8], log_x=True))
    assert 'data-places="2 4 8"' in shown and 'data-values="2,1,0.9,1.1 4,0.9,0.8,1 8,0.5,0.4,0.6"' in shown
    xs = [float(x) for x in re.findall(r'<circle cx="([^"]*)"', shown)]
    assert xs[2] - xs[1] == pytest.approx(xs[1] - xs[0], abs=0.11)
    assert re.findall(r'text-anchor="middle">([^<]*)<', shown) == ["8", "4", "2"]


def test_names_of_places_that_would_touch_are_left_out() -> None:
    """From the last one back; the pointer still finds them all."""
    places = [*range(1, 200)]
    shown = line_chart(Chart("x", "steps", [Line(0, "a", places, [1.0] * 199)], places=places))
    named = re.findall(r'text-anchor="middle">([^<]*)<', shown)
    assert (
        named[0] == "199" and 10 < len(named) < 25 and len(shown.split('data-places="')[1].split('"')[0].split()) == 199
    )


def test_a_value_above_the_most_lies_at_the_edge() -> None:
    """A first loss of a million does not press the rest flat."""
    lines = [Line(0, "a", [0, 1, 2], [1e6, 2.0, 1.0], "ended", rank=0.0)]
    shown = line_chart(Chart("x", "step", lines, most=3.0))
    (path,) = paths(shown)
    heights = [float(each.split(" ")[1]) for each in re.split("[ML]", path)[1:]]
    assert heights[0] < heights[1] - 50 and heights[1] < heights[2] - 50
    assert 'data-values="0,1e+06 ' in shown


def test_a_guide_and_dots_have_their_labels_beside_them() -> None:
    """A guide is no run, and a dot is a thing of its own to point at."""
    lines = [
        Line(1, "one", [2.0], [3.0], "dot", label="1 (best)"),
        Line(0, "", [4.0, 4.0], [0.0, 3.0], "guide", label="deadline"),
    ]
    shown = line_chart(Chart("cost", "hours", lines, shown="dollars", from_zero=True))
    assert ">deadline</text>" in shown and ">1 (best)</text>" in shown and 'class="run ' not in shown
    assert 'data-label="one\n2 hours\ncost: $3.00"' in shown


def test_a_single_value_is_seen() -> None:
    """A path through one point would draw nothing."""
    assert "<circle" in line_chart(Chart("x", "step", [Line(0, "a", [1], [2.0])]))


@pytest.mark.parametrize("log", [False, True])
def test_a_scale_goes_from_edge_to_edge_and_not_beyond(log: bool) -> None:
    """The middle of a logarithmic one is the geometric mean."""
    scale = Scale(1, 100, 0, 10, log=log)
    assert [scale(each) for each in (0.5, 1, 100, 1000)] == [0, 0, 10, 10]
    assert scale(10) == pytest.approx(5 if log else 10 * 9 / 99)


def test_ranges_are_on_one_scale() -> None:
    """From 0 where that is asked, with room at both ends where it is not."""
    rows = [Ranged("one", 5.0, (4.0, 6.0), (0.0, 10.0), "one: 5"), Ranged("two", 2.0, (2.0, 2.0), None, "two: 2")]
    shown = ranges(rows, name="n", from_zero=True)
    (wide,) = re.findall(r'class="wide" x1="([^"]*)"', shown)
    assert float(wide) == 200 and shown.count('class="narrow"') == 2
    assert float(re.findall(r'class="wide" x1="([^"]*)"', ranges(rows, name="n"))[0]) > 200
    assert ranges([], name="n") == ""


def test_words_of_strangers_are_no_markup() -> None:
    """Names of runs, labels of marks, of bars and of ranges are text."""
    evil = '"><script>alert(1)</script>'
    lines = [Line(0, evil, [1, 2], [1, 2]), Line(0, evil, [1], [1], "dot", label=evil)]
    chart = replace(CHART, title=evil, note=evil, lines=lines, marks=[Mark(0, 1, evil)])
    shown = line_chart(chart) + stacks([Stack(evil, [("k", 1.0)], evil)], {"k": evil}, show=str)
    shown += legend([(0, evil)]) + ranges([Ranged(evil, 1, (0, 2), None, evil)], name=evil, unit=evil)
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


def test_an_axis_has_one_unit() -> None:
    """Where its largest numbers are in thousands, 5,000 is 5k, and 0 is 0."""
    shown = line_chart(replace(CHART, lines=[Line(0, "a", [1, 2], [0, 30_000])], from_zero=True))
    labels = re.findall(r'text-anchor="end">([^<]*)</text>', shown)
    assert labels[:4] == ["0", "10k", "20k", "30k"]
    shown = line_chart(replace(CHART, lines=[Line(0, "a", [1, 2], [0, 12_000])], from_zero=True))
    assert re.findall(r'text-anchor="end">([^<]*)</text>', shown)[:4] == ["0", "5k", "10k", CHART.unit]
    shown = line_chart(replace(CHART, lines=[Line(0, "a", [1, 2], [0, 6_000])], from_zero=True))
    assert re.findall(r'text-anchor="end">([^<]*)</text>', shown)[:4] == ["0", "2000", "4000", "6000"]


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

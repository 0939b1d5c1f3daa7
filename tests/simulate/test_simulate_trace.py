"""trace: a user's own prices and interruptions, every bad row named at once; the synthetic ones are what they say."""

import math
from random import Random

import pytest

from scaletrain.errors import ConfigError
from scaletrain.simulate.series import Series
from scaletrain.simulate.synthetic import KINDS, synthetic_trace
from scaletrain.simulate.trace import SHIPPED, load_trace, parse_trace, shipped

GOOD = """\
# mine
time,machine_type,zone,price_usd_per_hour,interruptions,machines,capacity
2026-05-01T00:00:00Z,g6.xlarge,a,0.40,2,10,8
2026-05-01T02:00:00Z,g6.xlarge,a,0.50,0,10,
2026-05-01T01:00:00+00:00,g6.xlarge,b,0.30,,,4
"""


def test_a_row_holds_until_the_next_of_its_market() -> None:
    """Two of ten machines in two hours are 0.1 an hour; an empty capacity has no bound."""
    first, second = parse_trace(GOOD, source="mine.csv")
    assert (first.machine_type, first.zone, second.zone) == ("g6.xlarge", "a", "b")
    assert [first.price.at(time_s) for time_s in (0, 7199, 7200)] == [0.4, 0.4, 0.5]
    assert [first.losses_per_hour.at(time_s) for time_s in (0, 7200)] == [pytest.approx(0.1), 0]
    assert [first.capacity.at(time_s) for time_s in (0, 7200)] == [8, math.inf]
    assert first.price.length_s == second.price.length_s == 4 * 3600
    assert second.price.at(0) == 0.3


def test_every_bad_row_is_named() -> None:
    """With its line, what is there and what should be."""
    text = GOOD + "yesterday,g6.xlarge,a,0.4,1,10,8\n2026-05-01T03:00:00Z,,a,free,1,,2.5\n2026-05-01T04:00:00Z,g6\n"
    with pytest.raises(ConfigError) as caught:
        parse_trace(text, source="mine.csv")
    assert list(caught.value.problems) == [
        "mine.csv:6: time is 'yesterday'; give it as 2026-05-01T12:00:00Z",
        "mine.csv:7: machine_type is empty; give one, or * for any",
        "mine.csv:7: price_usd_per_hour is 'free'; give a number above 0",
        "mine.csv:7: capacity is '2.5'; give a whole number of machines",
        "mine.csv:8: has not as many fields as the header",
    ]


def test_many_bad_rows_are_counted() -> None:
    """Twenty are shown."""
    with pytest.raises(ConfigError) as caught:
        parse_trace(GOOD + "x,g6.xlarge,a,0.4,1,10,8\n" * 50, source="mine.csv")
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "... and 30 more rows like these"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("time,zone\n", "there is no column machine_type; give it"),
        ("time,machine_type,zone,price_usd_per_hour\n", "nothing in it says when machines are taken"),
        ("time,machine_type,zone,price_usd_per_hour,capacity\n", "has no rows below its header"),
        ("time,machine_type,zone,price,capacity\n", "column 'price' is not known"),
        (GOOD + "2026-05-01T00:00:00Z,g6.xlarge,a,0.4,1,10,8\n", "two rows for g6.xlarge a"),
        (GOOD + "2026-05-01T09:00:00Z,g6.xlarge,a,0.4,1,,8\n", "not of how many machines"),
    ],
)
def test_what_is_wrong_with_a_whole_file_is_said(text: str, problem: str) -> None:
    """An empty one, missing and unknown columns, rows that contradict each other."""
    with pytest.raises(ConfigError, match=problem):
        parse_trace(text, source="mine.csv")


def test_a_missing_file_is_one_clear_error() -> None:
    """With the names of the traces that there are."""
    with pytest.raises(ConfigError, match="one of calm, busy, scarce"):
        load_trace("nowhere.csv")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_traces_in_the_package_are_what_the_generator_makes(name: str) -> None:
    """So anyone can see how they were made."""
    assert shipped(name) == synthetic_trace(name)
    first = load_trace(name)[0]
    assert first.is_share
    assert first.price.mean == pytest.approx(KINDS[name].price, rel=0.2)


def test_a_series_adds_up_and_finds_its_times() -> None:
    """Integrals are those of many small pieces, over several repetitions; `when` is their inverse."""
    series = Series([0, 10, 25], [2.0, 0.0, 4.0], 30)
    assert series.mean == pytest.approx(40 / 30)
    random = Random(0)
    for _ in range(50):
        end_s = random.uniform(0, 100)
        pieces = sum(series.at((place + 0.5) * end_s / 5000) for place in range(5000)) * end_s / 5000
        assert series.integral(end_s) == pytest.approx(pieces, abs=0.2)
        amount = random.uniform(0, 130)
        assert series.integral(series.when(amount)) == pytest.approx(amount)
    assert Series.constant(0).when(1) == math.inf
    assert (series.next_below(3, 1), series.next_from(11, 3), series.next_from(29, 3)) == (10, 25, 29)
    assert (series.next_below(26, 1), series.next_from(5, 5)) == (40, math.inf)

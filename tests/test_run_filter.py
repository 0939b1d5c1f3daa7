"""run_filter: which runs are listed and in what order, and every mistake in asking for them at once."""

import pytest

from scaletrain.errors import ConfigError
from scaletrain.run_filter import as_number, parse_selection
from scaletrain.run_summary import RunSummary

RUNS = [
    RunSummary("small-a", "u", "finished", loss=1.5, workers=2, config={"zero.stage": 2, "train.learning_rate": 1e-3}),
    RunSummary("small-b", "u", "failed", loss=2.5, workers=4, config={"zero.stage": 3, "train.learning_rate": 1e-4}),
    RunSummary("large", "u", "training", loss=None, config={"zero.stage": 3, "model.source": "hub/large"}),
    RunSummary("torn", "u", "unreadable", problem="no YAML"),
]


def names(*, where: tuple[str, ...] = (), sort: tuple[str, ...] = (), limit: int | None = None) -> list[str]:
    return [run.name for run in parse_selection(where, sort, limit).of(RUNS) if run.status != "unreadable"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (("loss<2",), ["small-a"]),
        (("loss >= 1.5",), ["small-a", "small-b"]),
        (("loss!=1.5",), ["small-b"]),
        (("finished",), ["small-a"]),
        (("status!=finished",), ["small-b", "large"]),
        (("status=fin*",), ["small-a"]),
        (("small-*",), ["small-a", "small-b"]),
        (("name=small-?", "workers>2"), ["small-b"]),
        (("zero.stage=3",), ["small-b", "large"]),
        (("train.learning_rate=1e-4",), ["small-b"]),
        (("model.source=hub/*",), ["large"]),
        (("nobody",), []),
    ],
)
def test_conditions_all_have_to_hold(where: tuple[str, ...], expected: list[str]) -> None:
    """Numbers are compared as numbers, texts match with * and ?; a run without the field is not among them."""
    assert names(where=where) == expected


def test_orders_of_which_the_first_matters_most() -> None:
    """What lacks the field comes last, whichever way."""
    assert names(sort=("loss",)) == ["small-a", "small-b", "large"]
    assert names(sort=("-loss",)) == ["small-b", "small-a", "large"]
    assert names(sort=("-zero.stage,name",)) == ["large", "small-b", "small-a"]
    assert names(sort=("-loss",), limit=1) == ["small-b"]


def test_a_run_that_cannot_be_read_is_never_hidden_by_a_figure() -> None:
    """Nobody knows whether the condition holds; one of the status does or does not."""
    assert [run.name for run in parse_selection(("loss<2",), (), None).of(RUNS)] == ["small-a", "torn"]
    assert [run.name for run in parse_selection(("finished",), (), None).of(RUNS)] == ["small-a"]
    assert [run.name for run in parse_selection(("unreadable",), (), None).of(RUNS)] == ["torn"]


def test_every_mistake_is_named_at_once() -> None:
    """With what was meant, or what there is."""
    with pytest.raises(ConfigError) as caught:
        parse_selection(("los<2", "loss<low", "status=faild", "loss", "<3", "name<b"), ("-lss",), 0)
    wanted = (
        *("did you mean loss?", "is a number, and 'low' is none", "there are new, training", "as 'loss<2'"),
        *("is no condition", "compare it with = or !=", "--sort -lss: no such field", "give 1 or more"),
    )
    assert len(caught.value.problems) == len(wanted)
    for problem, part in zip(caught.value.problems, (*wanted[:6], *wanted[6:]), strict=True):
        assert part in problem


def test_a_field_that_no_run_has_is_a_slip() -> None:
    """Not an empty list without a word."""
    with pytest.raises(ConfigError, match=r"zero\.stge: no run has such a field, did you mean zero\.stage\?"):
        names(where=("zero.stge=3",))


def test_figures_that_take_every_line_are_known() -> None:
    """So that they are read only where they are asked for."""
    assert parse_selection(("goodput>60%",), (), None).takes_every_line
    assert parse_selection((), ("-tokens",), None).takes_every_line
    assert not parse_selection(("loss<2",), ("name",), None).takes_every_line


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2.0), ("1e-4", 1e-4), ("60%", 0.6), ("1.5k", 1500.0), ("2M", 2e6), ("$3", 3.0), ("1,000", 1000.0)],
)
def test_numbers_are_read_as_people_write_them(text: str, number: float) -> None:
    """With units."""
    assert as_number(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "k", "%", "x", "nan", "1e"])
def test_what_is_no_number_is_none(text: str) -> None:
    """Not a guess."""
    assert as_number(text) is None

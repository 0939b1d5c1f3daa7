"""judge.result: everything that the votes say, as data, in tables and as a page."""

from dataclasses import replace

import numpy as np
import orjson
import pytest
from jury import guessing, honest, made_up_items, vote_all
from rich.console import Console

from scaletrain.judge.feedback import Feedback
from scaletrain.judge.items import Item, Items
from scaletrain.judge.page import result_page
from scaletrain.judge.result import Result, result_of, wilson
from scaletrain.judge.summary import display, markdown
from scaletrain.judge.votes import Vote

STRENGTHS = {"base": -0.5, "trained": 0.5, "<b>other</b>|x": 0.0}
PROMPT = ({"role": "user", "content": "Hi"},)


@pytest.fixture(scope="module")
def found() -> Result:
    """Three models, four judges of whom one guesses, half of the pairs judged by each."""
    items = made_up_items(list(STRENGTHS), 60)
    judges = {name: honest(STRENGTHS, ties=0.1) for name in ("Ana", "Ben", "Cleo")} | {"guess": guessing}
    votes = vote_all(items, judges, share=0.5, seed=0)
    votes = [replace(vote, reasons=("helpful",)) if vote.judge == "Ana" else vote for vote in votes]
    thumb = Feedback("2026-01-01", "trained", PROMPT, "Hey", "up")
    return result_of(items, votes, [thumb, replace(thumb, vote="down"), replace(thumb, answer="Hi")])


def shown(result: Result) -> str:
    console = Console(width=220, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(display(result))
    return console.export_text()


def votes_on(items: Items, *choices: tuple[str, str]) -> list[Vote]:
    """Votes (judge, choice) one a pair, the first model on the left."""
    return [
        Vote(judge, pair.id, pair.item.id, pair.first, pair.second, choice)  # type: ignore[arg-type]
        for pair, (judge, choice) in zip(items.pairs.values(), choices, strict=False)
    ]


def test_a_win_rate_counts_ties_and_both_bad_as_half() -> None:
    """By hand: two better, one worse, one tie, one both bad of five are 60%."""
    items = made_up_items(["a", "b"], 5)
    choices = [("Ana", choice) for choice in ("left", "left", "right", "tie", "both_bad")]
    (rate,) = result_of(items, votes_on(items, *choices)).win_rates
    assert rate.rate.value == pytest.approx(0.6)
    assert (rate.wins, rate.losses, rate.ties, rate.both_bad, rate.pairs) == (2, 1, 1, 1, 5)


def test_the_side_on_which_an_answer_stood_does_not_matter() -> None:
    """The same opinion from the other side is the same result."""
    items = made_up_items(["a", "b"], 30)
    votes = vote_all(items, {"Ana": honest({"a": 1, "b": 0})})
    mirrored = {"left": "right", "right": "left"}
    turned = [
        replace(vote, left=vote.right, right=vote.left, choice=mirrored.get(vote.choice, vote.choice))  # type: ignore[arg-type]
        for vote in votes
    ]
    a, b = result_of(items, votes), result_of(items, turned)
    assert (a.win_rates, a.scores, a.decisions) == (b.win_rates, b.scores, b.decisions)


def test_wilsons_interval() -> None:
    """Against the values that Newcombe (1998, Statistics in Medicine 17, table I) gives for 81 of 263 and 0 of 20."""
    many, none = wilson(81, 263), wilson(0, 20)
    assert (many.low, many.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (none.low, none.high) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_win_rates_hold_the_truth() -> None:
    """Over 1,000 made-up judgings of 60 pairs, a fifth of them ties: in at least 95%, within four standard errors."""
    generator = np.random.default_rng(0)
    outcomes = generator.choice([0.0, 0.5, 1.0], p=[0.2, 0.2, 0.6], size=(1000, 60))
    intervals = [wilson(float(total), 60) for total in outcomes.sum(1)]
    inside = sum(interval.low <= 0.7 <= interval.high for interval in intervals) / 1000
    assert inside >= 0.95 - 4 * (0.95 * 0.05 / 1000) ** 0.5


def test_the_result_names_what_a_reader_has_to_know(found: Result) -> None:
    """The best model first, agreement, the judge who guesses, position, reasons and thumbs."""
    assert [score.model for score in found.scores] == ["trained", "<b>other</b>|x", "base"]
    assert len(found.win_rates) == len(found.decisions) == 3
    assert found.alpha_nominal is not None and found.alpha_nominal.value > 0
    assert found.reasons["trained"]["helpful"] > 0
    assert 0.4 < found.left_share.value < 0.6
    (thumbs,) = found.thumbs
    assert (thumbs.up, thumbs.down) == (2, 1)
    assert orjson.loads(orjson.dumps(found.record()))["votes"] == found.votes


def test_a_judge_can_be_left_out(found: Result) -> None:
    """Their votes count nowhere, and the result says so."""
    items = made_up_items(["a", "b"], 30)
    votes = vote_all(items, {"Ana": honest({"a": 1, "b": 0}), "guess": guessing})
    without = result_of(items, votes, leave_out=["guess"])
    alone = result_of(items, [vote for vote in votes if vote.judge == "Ana"])
    assert without.win_rates == alone.win_rates
    assert "votes of guess are left out" in markdown(without)


def test_votes_on_other_answers_are_left_out_and_counted() -> None:
    """An answer that was changed has to be judged again."""
    items, changed = made_up_items(["a", "b"], 2), Items((Item(PROMPT, {"a": "1", "b": "2"}),))
    found = result_of(changed, votes_on(items, ("Ana", "left"), ("Ana", "left")))
    assert (found.votes, found.votes_elsewhere) == (0, 2)
    assert "2 votes in the database are on other answers" in markdown(found)


def test_before_the_first_vote_there_is_a_result_too() -> None:
    """Nothing is divided by nothing."""
    found = result_of(made_up_items(["a", "b"], 3), [])
    assert found.verdicts == ["Nobody has voted yet."]
    assert "Nobody has voted yet." in shown(found)
    assert b"Nobody has voted yet." in result_page(found)


def test_the_state_of_the_decision_is_a_sentence() -> None:
    """How many more votes, and who won in the end."""
    items = made_up_items(["a", "b"], 80)
    some = result_of(items, votes_on(items, *[("Ana", "left")] * 6, *[("Ana", "right")] * 2))
    (decision,) = some.decisions
    votes = f"about {decision.more_votes} more votes on new pairs decide this if they come as so far"
    assert some.verdicts == [f"a or b: not decided yet; {votes}."]
    few = result_of(made_up_items(["a", "b"], 8), votes_on(items, *[("Ana", "left")] * 6, *[("Ana", "right")] * 2))
    assert few.verdicts == [f"a or b: not decided yet; {votes}; none left, so add prompts."]
    every = result_of(items, votes_on(items, *[("Ana", "left")] * 70, *[("Ana", "right")] * 5))
    assert every.verdicts == ["Decided: a is better than b."]


def test_tables_have_it_all(found: Result) -> None:
    """In the terminal and as Markdown, where a name cannot break the table."""
    for text in (shown(found), markdown(found)):
        assert all(
            word in text for word in ("Who is preferred", "Scores", "Is it decided", "alpha", "guess", "helpful")
        )
    assert "\\|x" in markdown(found)


def test_the_page_needs_nothing_else_and_escapes_names(found: Result) -> None:
    """No script but its own, no request; what models are called is text."""
    page = result_page(found).decode()
    assert "<b>other" not in page and "&lt;b&gt;other" in page
    assert page.count("<script>") == 1 and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert page.count("<circle") == 3


def test_equal_votes_give_an_equal_page(found: Result) -> None:
    """Intervals are drawn from a fixed seed."""
    items = made_up_items(["a", "b"], 20)
    votes = vote_all(items, {"Ana": honest({"a": 1, "b": 0})})
    assert result_page(result_of(items, votes)) == result_page(result_of(items, votes))

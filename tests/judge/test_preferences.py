"""judge.preferences: votes and thumbs as pairs to train on."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scaletrain.judge.feedback import Feedback
from scaletrain.judge.items import Item, Items
from scaletrain.judge.preferences import preferences
from scaletrain.judge.votes import CHOICES, Vote

TALK = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"})
ITEMS = Items((Item(TALK, {"base": "Go away.", "trained": "Hello!"}),))
(PAIR,) = ITEMS.pairs.values()


def vote(judge: str, choice: str, *, turned: bool = False) -> Vote:
    left, right = ("trained", "base") if turned else ("base", "trained")
    return Vote(judge, PAIR.id, PAIR.item.id, left, right, choice)  # type: ignore[arg-type]


def test_a_preference_is_in_trls_conversational_format() -> None:
    """Prompt, chosen and rejected are lists of messages; whose they are and who voted how stays known."""
    (found,) = preferences(ITEMS, [vote("Ana", "right"), vote("Ben", "left", turned=True), vote("Cleo", "tie")])
    assert found.record() == {
        "prompt": [dict(message) for message in TALK],
        "chosen": [{"role": "assistant", "content": "Hello!"}],
        "rejected": [{"role": "assistant", "content": "Go away."}],
        "models": {"chosen": "trained", "rejected": "base"},
        "votes": {"chosen": 2, "rejected": 0, "tie": 1, "both_bad": 0},
        "source": "judge",
    }


def test_the_majority_decides() -> None:
    """As many for one as for the other, only ties, or both bad for half of the judges: no preference."""
    left, right = vote("Ana", "left"), vote("Ben", "right")
    assert preferences(ITEMS, [left, right]) == []
    assert preferences(ITEMS, [vote("Ana", "tie")]) == []
    assert preferences(ITEMS, [left, vote("Ben", "both_bad")]) == []
    assert preferences(ITEMS, []) == []
    (found,) = preferences(ITEMS, [left, right, vote("Cleo", "left")])
    assert found.chosen == "Go away."


@given(st.lists(st.tuples(st.sampled_from(CHOICES), st.booleans()), max_size=9))
def test_chosen_has_more_votes_than_rejected(cast: list[tuple[str, bool]]) -> None:
    """Whatever was voted, on whichever side."""
    votes = [vote(f"judge {number}", choice, turned=turned) for number, (choice, turned) in enumerate(cast)]
    for found in preferences(ITEMS, votes):
        assert found.votes["chosen"] > found.votes["rejected"]
        assert sum(found.votes.values()) == len(votes)
        assert {found.chosen, found.rejected} == set(ITEMS.items[0].answers.values())


def test_thumbs_on_the_same_messages_give_a_pair() -> None:
    """An answer with thumbs up against one with thumbs down; one alone is no preference."""
    up = Feedback("2026-01-01", "a", TALK, "Hello!", "up")
    down = replace(up, model="b", answer="Go away.", vote="down")
    (found,) = preferences(ITEMS, [], [up, down])
    assert (found.chosen, found.rejected, found.source) == ("Hello!", "Go away.", "feedback")
    assert preferences(ITEMS, [], [up]) == []
    elsewhere = replace(down, messages=({"role": "user", "content": "Bye"},))
    assert preferences(ITEMS, [], [up, elsewhere]) == []
    assert preferences(ITEMS, [], [up, replace(up, vote="down"), down]) == []

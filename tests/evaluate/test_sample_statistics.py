"""What is counted in sample answers: repetition, variety, length, refusals, ends."""

import pytest

from scaletrain.evaluate.refusals import PHRASES, is_refusal
from scaletrain.evaluate.sample_statistics import distinct, longest_repeat, repetition, sample_statistics
from scaletrain.evaluate.samples import Sample


def test_repetition_is_the_share_of_4_grams_that_were_there_before() -> None:
    """Ten equal words have seven 4-grams, of which six repeat the first; different words repeat nothing."""
    assert repetition(["so"] * 10) == pytest.approx(6 / 7)
    assert repetition(["a", "b", "c", "d", "e", "f"]) == 0
    assert repetition(["short"]) == 0


@pytest.mark.parametrize(
    ("text", "length"),
    [("a b c x a b c y", 3), ("a a a a", 3), ("a b c", 0), ("", 0), ("one", 0), ("x a b y a b z", 2)],
)
def test_the_longest_repeat_is_found(text: str, length: int) -> None:
    """The longest run of words that occurs twice, overlapping or not."""
    assert longest_repeat(text.split()) == length


def test_distinct_counts_over_all_answers() -> None:
    """The same answer twice is half as varied as two different ones."""
    assert distinct([["a", "b"], ["a", "b"]], 1) == 0.5
    assert distinct([["a", "b"], ["c", "d"]], 2) == 1
    assert distinct([["a"]], 3) == 0


def test_refusals_are_found_in_every_listed_language() -> None:
    """Each phrase is found whatever its case, with a curly apostrophe too, and near the beginning only."""
    for phrases in PHRASES.values():
        assert all(is_refusal(f"Hm. {phrase.upper() if phrase.isascii() else phrase} ...") for phrase in phrases)
    assert is_refusal("I’m sorry, but I can’t say that.")
    assert not is_refusal("I like tea. " * 40 + "As an AI I would not know.")
    assert not is_refusal("Sure, here is how.")


def test_a_summary_has_the_mean_of_each() -> None:
    """Unspaced scripts are counted by character, and no samples have no statistics."""
    found = sample_statistics([Sample("?", "你好吗", 5, ended=True), Sample("?", "", 0, ended=False)])
    assert found is not None
    assert (found.answers, found.mean_words, found.mean_tokens) == (2, 1.5, 2.5)
    assert (found.ended, found.empty, found.refused) == (0.5, 0.5, 0)
    assert sample_statistics([]) is None

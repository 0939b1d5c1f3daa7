"""Perplexity: honest figures made of the losses of answers."""

import numpy as np
import pytest
from measured import answers_of

from scaletrain.errors import DataError
from scaletrain.evaluate.perplexity import changes, perplexities


def test_perplexity_is_per_supervised_token() -> None:
    """A long answer weighs as much as it has tokens, and bits per byte count what is said."""
    everything, *_ = perplexities(answers_of([1, 9], [np.log(100.0), 9 * np.log(10.0)]))
    assert everything.value == pytest.approx(np.exp((np.log(100.0) + 9 * np.log(10.0)) / 10))
    assert everything.bits_per_token == pytest.approx(np.log2(everything.value))
    assert everything.bits_per_byte == pytest.approx(everything.bits_per_token / 4)


def test_each_corpus_language_and_depth_is_reported_after_all() -> None:
    """The first figure is of everything, then comes every group that has answers."""
    figures = perplexities(
        answers_of(
            [2, 3, 4, 1],
            [2.0, 6.0, 4.0, 1.0],
            corpus=[0, 1, 0, 0],
            language=[1, 1, 0, 0],
            depth=[1, 2, 7, 30],
            conversation=[0, 0, 1, 1],
        )
    )
    assert [(each.kind, each.name, each.tokens, each.answers, each.conversations) for each in figures] == [
        ("corpus", "all", 10, 4, 2),
        ("corpus", "chat", 7, 3, 2),
        ("corpus", "news", 3, 1, 1),
        ("language", "en", 5, 2, 1),
        ("language", "fr", 5, 2, 1),
        ("depth", "1", 2, 1, 1),
        ("depth", "2", 3, 1, 1),
        ("depth", "5 to 8", 4, 1, 1),
        ("depth", "9 and on", 1, 1, 1),
    ]


def test_the_interval_holds_the_value_and_narrows_with_conversations() -> None:
    """More conversations of the same kind make a surer figure, of perplexity and of bits per byte."""
    nll = np.random.default_rng(1).gamma(4.0, size=400).tolist()
    few, *_ = perplexities(answers_of([1] * 40, nll[:40]))
    many, *_ = perplexities(answers_of([1] * 400, nll))
    for figure in (few, many):
        assert figure.low < figure.value < figure.high
        assert figure.bits_low < figure.bits_per_byte < figure.bits_high
    assert many.high - many.low < few.high - few.low


def test_answers_of_one_conversation_do_not_count_as_independent() -> None:
    """The same losses in fewer conversations are known less surely."""
    nll = np.repeat(np.random.default_rng(2).gamma(4.0, size=50), 8).tolist()
    apart, *_ = perplexities(answers_of([1] * 400, nll))
    together, *_ = perplexities(answers_of([1] * 400, nll, conversation=np.repeat(range(50), 8).tolist()))
    assert together.value == apart.value
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_equal_models_have_no_change_at_all() -> None:
    """Where nothing was learned the change and its interval are exactly zero, and the test sees nothing."""
    answers = answers_of([3, 5, 2], [3.0, 9.0, 1.0])
    change = changes(answers, answers)["corpus", "all"]
    assert (change.value, change.low, change.high, change.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_change_is_paired_by_conversation() -> None:
    """The same gain on easy and hard conversations is seen surely, however much they differ."""
    before = answers_of([1] * 20, np.linspace(1.0, 9.0, 20).tolist())
    after = answers_of([1] * 20, np.linspace(0.9, 8.9, 20).tolist())
    change = changes(before, after)["corpus", "all"]
    assert change.value == pytest.approx(np.exp(-0.1) - 1)
    assert change.high - change.low < 1e-6
    assert change.p < 0.001


def test_measurements_of_different_answers_are_not_compared() -> None:
    """A difference of unlike things would be a number without a meaning."""
    with pytest.raises(DataError, match="not of the same conversations"):
        changes(answers_of([1, 2], [1.0, 1.0]), answers_of([1, 3], [1.0, 1.0]))

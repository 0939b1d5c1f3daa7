"""What sample answers are like: how long, how varied, how repetitive, and whether they come to an end.

Counted in words (in Chinese, Japanese and other unspaced scripts in characters), so two models of different tokenizers
compare. distinct-n is that of Li et al. 2016 (arXiv:1510.03055): different n-grams over all n-grams of all answers.
Repetition is the share of an answer's 4-grams that it had before (Welleck et al. 2020, arXiv:1908.04319, seq-rep-4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from scaletrain.data.ngrams import units
from scaletrain.evaluate.refusals import is_refusal
from scaletrain.evaluate.samples import Sample

_REPEATED = 4


@dataclass(frozen=True)
class SampleStatistics:
    """Of all answers together; shares are from 0 to 1, lengths in words.

    longest_repeat: the longest run of words that an answer says twice. ended: the share that the model ended itself,
    before max_new_tokens. refused: a heuristic (see refusals).
    """

    answers: int
    mean_words: float
    median_words: float
    mean_tokens: float
    repeated_4grams: float
    longest_repeat: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    refused: float
    ended: float
    empty: float


def sample_statistics(samples: Sequence[Sample]) -> SampleStatistics | None:
    """Count over answers; None where there are none."""
    if not samples:
        return None
    said = [units(sample.reply) for sample in samples]
    return SampleStatistics(
        answers=len(samples),
        mean_words=mean(map(len, said)),
        median_words=float(median(map(len, said))),
        mean_tokens=mean(sample.tokens for sample in samples),
        repeated_4grams=mean(map(repetition, said)),
        longest_repeat=max(map(longest_repeat, said)),
        distinct_1=distinct(said, 1),
        distinct_2=distinct(said, 2),
        distinct_3=distinct(said, 3),
        refused=mean(is_refusal(sample.reply) for sample in samples),
        ended=mean(sample.ended for sample in samples),
        empty=mean(not sample.reply for sample in samples),
    )


def repetition(words: Sequence[str]) -> float:
    """The share of 4-grams that were there before; 0 of an answer that is too short to have two."""
    runs = _ngrams(words, _REPEATED)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(answers: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams of all answers over all of them; 0 where there are none."""
    runs = [run for words in answers for run in _ngrams(words, n)]
    return len(set(runs)) / len(runs) if runs else 0.0


def longest_repeat(words: Sequence[str]) -> int:
    """The length of the longest run of words that occurs twice; the two may overlap.

    A run that occurs twice has all its beginnings occur twice, so halving finds the longest.
    """
    low, high = 0, max(len(words) - 1, 0)
    while low < high:
        middle = (low + high + 1) // 2
        runs = _ngrams(words, middle)
        if len(set(runs)) < len(runs):
            low = middle
        else:
            high = middle - 1
    return low


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]

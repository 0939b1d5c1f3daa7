"""Text as runs of n words, hashed: what finding near-duplicates and leaked benchmark items compare.

A unit is a word of letters and digits in lower case; in scripts that put no spaces between words (Chinese, Japanese,
Thai, Lao, Khmer, Burmese, Tibetan) it is a character. Punctuation, emoji and white space are no units.
"""

import functools
import re

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

UNSPACED = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
UNSPACED += "\uff66-\uff9d\U00020000-\U000323af"
MARKS = "\u0300-\u036f\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"  # vowel signs and accents: \w leaves them out
_UNIT = re.compile(f"[{UNSPACED}]|(?:[^\\W{UNSPACED}]|[{MARKS}])+")
_ASCII_UNIT = re.compile(r"\w+", re.ASCII)
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
_BASE = 0x9E3779B97F4A7C15  # any odd number: it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 2**64)
_MAX_HASHES = 2**17


def units(text: str) -> list[str]:
    """Return the text's units in order."""
    return (_ASCII_UNIT if text.isascii() else _UNIT).findall(text.lower())


def count_unspaced(words: list[str]) -> int:
    """Count the units that are characters of scripts without spaces."""
    return sum(len(word) == 1 and _IS_UNSPACED.match(word) is not None for word in words)


def hash_units(words: list[str]) -> Hashes:
    """Return a hash of every unit."""
    return np.fromiter(map(_HASHES.__getitem__, words), np.uint64, len(words))


def hash_ngrams(hashes: Hashes, n: int) -> Hashes:
    """Return a hash of every run of n units, of which there are len(hashes) - n + 1, or none.

    It is the run's polynomial in _BASE modulo 2**64, from differences of prefix sums (Karp and Rabin 1987).
    """
    count = len(hashes) - n + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    powers, inverses = _powers(1 << (len(hashes) - 1).bit_length())
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * powers[: len(hashes)], out=sums[1:])
    return (sums[n:] - sums[:count]) * inverses[:count]


class _WordHashes(dict[str, int]):
    """Hashes of the words met so far; a word that was met costs no call, as it would with an lru_cache."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_HASHES:
            self.clear()
        self[word] = hash_of_word = xxhash.xxh3_64_intdigest(word.encode())
        return hash_of_word


_HASHES = _WordHashes()


@functools.lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse, modulo 2**64."""
    with np.errstate(over="ignore"):
        return tuple(  # type: ignore[return-value]
            np.multiply.accumulate(np.concatenate([np.ones(1, np.uint64), np.full(count - 1, base, np.uint64)]))
            for base in (_BASE, _INVERSE)
        )

"""near_duplicates: fingerprints, which of them are alike, and who stays of each cluster."""

import random

import numpy as np
import pytest

import planted
from scaletrain.data.near_duplicates import (
    SKETCH_SIZE,
    Fingerprint,
    banding,
    find_survivors,
    fingerprint,
    similarity_of,
)
from scaletrain.data.ngrams import hash_ngrams, hash_units, units


def prints_of(texts: list[str], similarity: float = 0.8) -> list[Fingerprint]:
    return [fingerprint(hash_units(units(text)), banding(similarity)) for text in texts]


def survivors(texts: list[str], similarity: float = 0.8, rank: list[int] | None = None) -> list[int]:
    prints = prints_of(texts, similarity)
    bands = np.array([each.bands for each in prints]).T
    order = np.array(rank or range(len(texts)))
    return find_survivors(order, list(bands), lambda i: prints[i].sketch, similarity=similarity).tolist()  # type: ignore[no-any-return]


def true_similarity(first: str, second: str) -> float:
    a, b = ({*hash_ngrams(hash_units(units(text)), 3).tolist()} for text in (first, second))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("chinese", [False, True])
def test_planted_duplicates_are_found_and_nothing_else(chinese: bool) -> None:
    """Of 500 changed copies that are alike at least 95% are left out, of 1,000 texts that are not under 0.5%."""
    rng = random.Random(7)
    originals = [planted.text(rng, chinese=chinese) for _ in range(1000)]
    copies = [planted.changed(text, rng) for text in originals[:500]]
    found = survivors([*originals, *copies])
    alike = [i for i in range(500) if true_similarity(originals[i], copies[i]) >= 0.8]
    assert len(alike) > 400
    recall = sum(found[1000 + i] == i for i in alike) / len(alike)
    wrong = sum(found[i] != i for i in range(1000)) / 1000
    print(f"chinese={chinese}: {len(alike)} alike, recall {recall:.3f}, false positives {wrong:.4f}")
    assert recall >= 0.95
    assert wrong < 0.005


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_find_pairs_that_are_just_alike_enough(similarity: float) -> None:
    """By the formula of banding, 99 of 100 pairs of exactly this similarity meet in a band; the cost is bounded."""
    how = banding(similarity)
    assert 1 - (1 - similarity**how.rows) ** how.bands >= 0.99
    assert how.bands * how.rows <= 128


def test_bands_meet_as_often_as_minhash_says() -> None:
    """The hash functions are independent enough: pairs of similarity 0.7 meet about as often as the formula says."""
    rng = np.random.default_rng(3)
    how = banding(0.8)
    met = []
    for _ in range(1000):
        said = rng.integers(0, 2**63, 202, dtype=np.uint64)  # 200 runs, of which 140 are in both
        first, second = (fingerprint(each, how).bands for each in (said[:172], said[30:]))
        met.append((first == second).any())
    expected = 1 - (1 - 0.7**how.rows) ** how.bands
    assert abs(np.mean(met) - expected) < 0.03


def test_the_order_of_arrival_changes_nothing() -> None:
    """The same texts in another order give the same survivors."""
    rng = random.Random(1)
    texts = [planted.text(rng) for _ in range(60)]
    texts += [planted.changed(text, rng) for text in texts for _ in range(2)]
    expected = {text: texts[i] for text, i in zip(texts, survivors(texts), strict=True)}
    order = rng.sample(range(len(texts)), len(texts))
    found = survivors([texts[i] for i in order], rank=order)
    assert {texts[order[i]]: texts[order[j]] for i, j in enumerate(found)} == expected


def test_one_of_a_chain_survives_the_first_in_rank() -> None:
    """A is like B and B is like C: one cluster, whose survivor ranks first, though it need not be like all."""
    words = [f"w{i}" for i in range(60)]
    a, b, c = (" ".join(words[i : i + 50]) for i in (0, 5, 10))
    assert true_similarity(a, b) > 0.8 > true_similarity(a, c)
    assert survivors([a, b, c, "something else is said here"], rank=[3, 2, 1, 0]) == [2, 2, 2, 3]


def test_a_crowd_of_one_template_is_not_compared_with_all() -> None:
    """Forms that differ too much to be duplicates stay, and two that are nearly equal do not."""
    form = " ".join(f"f{i}" for i in range(40))
    crowd = [f"{form} {' '.join(f'x{n}y{i}' for i in range(12))}" for n in range(300)]
    found = survivors([*crowd, crowd[150] + " indeed"])
    assert found == [*range(300), 150]


def test_sketches_of_long_texts_estimate_their_similarity() -> None:
    """Beyond 512 runs the estimate is right to a few hundredths; below, it is exact."""
    words = [f"w{n}" for n in range(4000)]
    for length, tolerance in ((4000, 0.06), (480, 1e-9)):
        long, cut = " ".join(words[:length]), " ".join(words[length // 10 : length])
        first, second = (each.sketch for each in prints_of([long, cut]))
        assert (len(first) == SKETCH_SIZE) == (length > 512)
        assert abs(similarity_of(first, second) - true_similarity(long, cut)) < tolerance


def test_what_has_no_run_of_three_words_has_no_fingerprint() -> None:
    """Greetings and emoji are compared as they are, or not at all."""
    for text in ("", "Hi there", "👋👋👋👋", "..."):
        assert len(prints_of([text])[0].bands) == len(prints_of([text])[0].sketch) == 0

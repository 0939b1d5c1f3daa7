"""splits: who is held out, and that nobody held out is trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from document_rows import conversation, documents

from scaletrain.data.splits import assign_splits


def held_out(folder: Path, rows: Sequence[dict[str, Any]], validation: float, *, by_author: bool = True) -> set[int]:
    """The rows (by number) that are held out; the others are trained on."""
    found = documents(folder, rows)
    splits = assign_splits(found, np.arange(len(rows)), validation=validation, by_author=by_author)
    assert sorted([*splits["train"], *splits["validation"]]) == list(range(len(rows)))
    return set(splits["validation"].tolist())


def test_who_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    """All conversations of an author held out are, with whomever; of these about the share asked for."""
    pairs = [(f"author-{i}", f"author-{(i * 7 + j) % 200}") for i in range(200) for j in range(3)]
    rows = [conversation(f"text {n}", row=n, authors=pair) for n, pair in enumerate(pairs)]
    chosen = held_out(tmp_path, rows, 0.1)
    trained = {author for n, pair in enumerate(pairs) if n not in chosen for author in pair}
    gone = {author for n in chosen for author in pairs[n]} - trained
    assert all(set(pairs[n]) & gone for n in chosen)
    assert 0.02 < len(gone) / 200 < 0.1
    assert 0.05 < len(chosen) / 600 < 0.15
    assert chosen == {n for n, pair in enumerate(pairs) if set(pair) & gone}


def test_conversations_without_authors_are_held_out_by_what_they_say(tmp_path: Path) -> None:
    """So too where the setting says so; about the share asked for."""
    unknown = [conversation(f"text {n}", row=n) for n in range(1000)]
    named = [conversation(f"text {n}", row=n, authors=[f"author-{n % 100}"]) for n in range(1000)]
    chosen = held_out(tmp_path, unknown, 0.1)
    assert 70 < len(chosen) < 130
    assert held_out(tmp_path, named, 0.1, by_author=False) == chosen
    assert held_out(tmp_path, named, 0.1) != chosen


def test_who_speaks_everywhere_is_nobody_to_hold_out(tmp_path: Path) -> None:
    """A company's account in every conversation neither holds all of them out nor keeps them in."""
    rows = [conversation(f"text {n}", row=n, authors=["company", f"customer-{n}"]) for n in range(1000)]
    assert 70 < len(held_out(tmp_path, rows, 0.1)) < 130


def test_who_speaks_everywhere_in_one_corpus_does_not_hold_that_out(tmp_path: Path) -> None:
    """Beside a large corpus a bot of a small one is rare; held out, it would take its whole corpus along."""
    names = (f"bot-{number}" for number in range(999))
    bot = next(name for name in names if xxhash.xxh3_64_intdigest(name.encode()) < 0.01 * 2**64)
    large = [conversation(f"text {n}", row=n, authors=[f"author-{n}"]) for n in range(1000)]
    small = [conversation(f"more {n}", row=n, corpus=1, authors=[bot, f"customer-{n}"]) for n in range(20)]
    of_small = {n for n in held_out(tmp_path, [*large, *small], 0.05) if n >= 1000}
    assert 1 <= len(of_small) <= 5


def test_in_a_tiny_corpus_people_are_held_out_too(tmp_path: Path) -> None:
    """Though each of eight people has more than a tenth of it: one conversation takes no others along."""
    rows = [conversation(f"text {n}", row=n, authors=[f"author-{n}"]) for n in range(8)]
    others = [conversation(f"more {n}", row=n, corpus=1, authors=[f"author-{n % 100}"]) for n in range(1000)]
    chosen = held_out(tmp_path, [*rows, *others], 0.5)
    assert {n for n in range(8) if n in chosen} == {n for n in range(8) if n + 8 in chosen}


def test_a_conversation_stays_in_its_split_when_others_come(tmp_path: Path) -> None:
    """With authors and without."""
    rows = [conversation(f"text {n}", row=n, authors=[f"author-{n % 50}"] if n % 2 else []) for n in range(300)]
    more = [conversation(f"more {n}", row=n, corpus=1, authors=[f"new-{n}"]) for n in range(100)]
    before, after = held_out(tmp_path, rows, 0.1), held_out(tmp_path, [*rows, *more], 0.1)
    assert before == {n for n in after if n < 300}


def test_every_corpus_and_language_has_something_held_out(tmp_path: Path) -> None:
    """However small the share is; a corpus of one conversation keeps it for training."""
    rows = [conversation(f"text {n}", row=n, corpus=n % 2, language="en" if n % 4 < 2 else "zh") for n in range(40)]
    rows.append(conversation("the only one", corpus=2))
    chosen = held_out(tmp_path, rows, 0.001)
    assert {(n % 2, n % 4 < 2) for n in chosen} == {(0, True), (1, True), (0, False), (1, False)}
    assert len(chosen) == 4


def test_a_share_of_nothing_holds_out_nothing(tmp_path: Path) -> None:
    """validation: 0; and no documents at all are no error here."""
    assert held_out(tmp_path, [conversation(f"text {n}", row=n) for n in range(9)], 0.0) == set()
    assert held_out(tmp_path, [], 0.5) == set()


def test_something_is_always_left_to_train_on(tmp_path: Path) -> None:
    """Two conversations of two friends, one conversation alone, and equal conversations."""
    for by_author in (True, False):
        friends = [conversation(f"text {n}", row=n, authors=["a", "b"]) for n in range(2)]
        assert len(held_out(tmp_path, friends, 0.5, by_author=by_author)) == 1
        assert held_out(tmp_path, friends[:1], 0.5, by_author=by_author) == set()
        equal = [conversation("the same", row=n, authors=[f"author-{n}"]) for n in range(20)]
        assert held_out(tmp_path, equal, 0.5, by_author=by_author) == set()


def test_equal_conversations_are_in_one_split(tmp_path: Path) -> None:
    """Where duplicates are kept, also those of different authors."""
    rows = [conversation(f"text {n // 5}", row=n, authors=[f"author-{n}"]) for n in range(100)]
    chosen = held_out(tmp_path, rows, 0.1)
    assert chosen and all({n // 5 * 5 + i for i in range(5)} <= chosen for n in chosen)

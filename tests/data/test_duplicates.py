"""duplicates: who stays of equal and of nearly equal conversations."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
from document_rows import conversation, documents, dropped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import planted
from scaletrain.config_data import DataSection
from scaletrain.data.documents import Documents
from scaletrain.data.duplicates import drop_duplicates
from scaletrain.data.mixing import mix
from scaletrain.data.splits import assign_splits
from scaletrain.errors import DataError

LONG = "one two three four five six seven eight nine ten eleven twelve"


def kept(found: Documents) -> list[str]:
    return [found.where(int(row)) for row in np.flatnonzero(found.has_document)]


def without_duplicates(found: Documents, how: str = "near") -> Documents:
    rows = found.kept(np.ones(len(found), np.bool_))
    return drop_duplicates(found, rows, duplicates=how, similarity=0.8)  # type: ignore[arg-type]


def test_of_equal_ones_the_first_corpus_keeps_its_own(tmp_path: Path) -> None:
    """Whatever arrives first: the configuration's order counts, then that of rows; each duplicate says of whom."""
    rows = [conversation(LONG, corpus=1, row=0), conversation(LONG, row=5), conversation(LONG, row=2)]
    found = without_duplicates(documents(tmp_path, rows, rows_a_table=2))
    assert kept(found) == ["corpus-0:2"]
    assert found.reason.tolist() == ["duplicate", "duplicate", None]
    assert found.where(0) == "corpus-1:0: as corpus-0:2"
    assert found.details(np.array([1, 2]))["detail"].to_pylist() == ["as corpus-0:2", None]


def test_of_near_duplicates_the_longest_stays(tmp_path: Path) -> None:
    """Across corpora too; a shorter one of the first corpus gives way."""
    rows = [conversation(LONG), conversation(LONG.upper() + " Thirteen", corpus=1), conversation("two three four")]
    found = without_duplicates(documents(tmp_path, rows))
    assert kept(found) == ["corpus-1:0", "corpus-0:0"]
    assert found.reason.tolist() == ["near_duplicate", None, None]
    assert found.where(0) == "corpus-0:0: as corpus-1:0"


def test_a_duplicate_names_the_one_that_stays_in_the_end(tmp_path: Path) -> None:
    """Equal to a conversation that is left out itself, as a longer one is nearly the same."""
    rows = [conversation(LONG), conversation(LONG, row=1), conversation(LONG + " thirteen", row=2)]
    found = without_duplicates(documents(tmp_path, rows))
    assert found.reason.tolist() == ["near_duplicate", "duplicate", None]
    assert [found.where(row) for row in (0, 1)] == ["corpus-0:0: as corpus-0:2", "corpus-0:1: as corpus-0:2"]


def test_near_duplicates_and_all_duplicates_can_stay(tmp_path: Path) -> None:
    """`exact` leaves those that only look alike, `keep` leaves all."""
    rows = [conversation(LONG), conversation(LONG, row=1), conversation(LONG + "!", row=2)]
    found = documents(tmp_path, rows)
    assert kept(without_duplicates(found, "exact")) == ["corpus-0:0", "corpus-0:2"]
    assert len(kept(without_duplicates(found, "keep"))) == 3


def test_what_was_left_out_before_takes_no_place(tmp_path: Path) -> None:
    """Rows beyond a corpus's limit, or without a document, are never the one that stays."""
    found = documents(tmp_path, [conversation(LONG), dropped("too_short", row=1), conversation(LONG, row=2)])
    chosen = drop_duplicates(found, np.array([2]), duplicates="near", similarity=0.8)
    assert chosen.reason.tolist() == [None, "too_short", None]


_SETTINGS = st.fixed_dictionaries(
    {
        "duplicates": st.sampled_from(["near", "exact", "keep"]),
        "validation": st.sampled_from([0.0, 0.1, 0.5]),
        "hold_out": st.sampled_from(["author", "conversation"]),
        "temperature": st.sampled_from([1.0, 3.0]),
        "max_epochs": st.sampled_from([1.0, 4.0]),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), _SETTINGS, st.sampled_from([1.0, 0.5, 1.7]), st.integers(1, 9))
def test_no_row_is_lost_without_a_reason(
    tmp_path: Path, seed: int, setting: dict[str, object], epochs: float, rows_a_table: int
) -> None:
    """Read = trained on + held out + left out by reason; no conversation in both splits; arrival changes nothing."""
    rng = random.Random(seed)
    texts = [planted.text(rng) for _ in range(6)]
    rows = []
    for row in range(rng.randint(1, 25)):
        text = rng.choice(texts)
        text = planted.changed(text, rng) if rng.random() < 0.5 else text
        corpus, authors = rng.randrange(2), rng.sample("abcdefghijk", rng.randrange(3))
        new = conversation(text, corpus=corpus, row=row, authors=authors, language=rng.choice(["", "en", "zh"]))
        rows.append(new if rng.random() < 0.9 else dropped("too_short", corpus=corpus, row=row))
    corpora = [{"format": "messages", "source": "a", "name": name, "epochs": epochs} for name in "ab"]
    section = DataSection.model_validate({"corpora": corpora, **setting})
    outcomes = []
    for order in (rows, rng.sample(rows, len(rows))):
        found = documents(tmp_path, order, rows_a_table=rows_a_table)
        chosen = drop_duplicates(
            found, np.flatnonzero(found.has_document), duplicates=section.duplicates, similarity=section.similarity
        )
        left = np.flatnonzero(chosen.has_document)
        splits = assign_splits(chosen, left, validation=section.validation, by_author=section.hold_out == "author")
        train, validation = (set(splits[name].tolist()) for name in ("train", "validation"))
        assert not train & validation and train | validation == set(left.tolist())
        reasons = Counter(chosen.reason.tolist())
        assert len(rows) == len(train) + len(validation) + sum(reasons.values()) - reasons[None]
        try:
            copies = Counter(mix(chosen, splits["train"], section).tolist())
        except DataError:  # so few that half of them are none
            copies = Counter()
        assert set(copies) <= train
        outcomes.append(sorted((chosen.where(int(row)), row in validation, copies[row]) for row in left))
    assert outcomes[0] == outcomes[1]

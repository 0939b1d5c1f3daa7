"""mixing: how often each training conversation is there."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from document_rows import conversation, documents
from pydantic import ValidationError

from scaletrain.config_data import DataSection
from scaletrain.data.documents import Documents
from scaletrain.data.mixing import mix
from scaletrain.errors import DataError


def section(*corpora: dict[str, Any], **settings: Any) -> DataSection:
    named = [{"format": "messages", "source": "a", "name": f"corpus-{n}", **each} for n, each in enumerate(corpora)]
    return DataSection.model_validate({"corpora": named, **settings})


@pytest.fixture(scope="module")
def two_corpora(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """900 conversations of 10 tokens in English and 100 in Chinese, and another corpus of 100 of 20 in English."""
    rows = [conversation(f"en {n}", row=n, language="en" if n < 900 else "zh", num_tokens=10) for n in range(1000)] + [
        conversation(f"other {n}", row=n, corpus=1, language="en", num_tokens=20) for n in range(100)
    ]
    return documents(tmp_path_factory.mktemp("documents"), rows, rows_a_table=500)


def tokens(found: Documents, mixed: np.ndarray[Any, Any]) -> Counter[tuple[int, str]]:
    counts: Counter[tuple[int, str]] = Counter()
    languages = found.known["language"].to_pylist()
    for row in mixed.tolist():
        counts[int(found.corpus[row]), languages[row]] += int(found.num_tokens[row])
    return counts


def test_without_settings_all_is_there_once_in_its_order(two_corpora: Documents) -> None:
    """The natural mix."""
    members = np.random.default_rng(1).permutation(len(two_corpora))
    assert mix(two_corpora, members, section({}, {})).tolist() == members.tolist()


def test_epochs_take_a_share_or_repeat(two_corpora: Documents) -> None:
    """Half of one corpus, two and a half times the other: whole copies first, no copies side by side."""
    members = np.arange(len(two_corpora))
    mixed = mix(two_corpora, members, section({"epochs": 0.5}, {"epochs": 2.5}))
    copies = Counter(mixed.tolist())
    first, second = ([copies[n] for n in part] for part in (range(1000), range(1000, 1100)))
    assert set(first) == {0, 1} and 430 < sum(first) < 570
    assert set(second) == {2, 3} and 235 < sum(second) < 265
    firsts = mixed[: len(copies)]
    assert len(set(firsts.tolist())) == len(firsts)


def test_what_is_sampled_changes_little_when_others_come_or_go(two_corpora: Documents) -> None:
    """A conversation that half an epoch takes is taken whatever else is there."""
    half = section({"epochs": 0.5}, {"epochs": 0.5})
    everything = set(mix(two_corpora, np.arange(1100), half).tolist())
    some = np.arange(0, 1100, 3)
    assert set(mix(two_corpora, some, half).tolist()) == everything & set(some.tolist())


def test_weights_are_shares_of_the_tokens(two_corpora: Documents) -> None:
    """One to one: as many tokens in all as there were, and half of them of each corpus, its languages as they were."""
    mixed = mix(two_corpora, np.arange(1100), section({"weight": 5}, {"weight": 5}, max_epochs=10))
    counts = tokens(two_corpora, mixed)
    total = counts.total()
    assert abs(total - 12_000) < 400
    assert abs(counts[1, "en"] / total - 0.5) < 0.02
    assert abs(counts[0, "zh"] / (counts[0, "zh"] + counts[0, "en"]) - 0.1) < 0.03


def test_temperature_lifts_small_corpora_and_languages(two_corpora: Documents) -> None:
    """At T the shares are those of n ** (1/T); beside weights it is for the languages alone."""
    counts = tokens(two_corpora, mix(two_corpora, np.arange(1100), section({}, {}, temperature=2, max_epochs=10)))
    roots = {(0, "en"): 9000**0.5, (0, "zh"): 1000**0.5, (1, "en"): 2000**0.5}
    for stratum, root in roots.items():
        assert abs(counts[stratum] / counts.total() - root / sum(roots.values())) < 0.03
    weighted = section({"weight": 1}, {"weight": 3}, temperature=1e6, max_epochs=20)
    counts = tokens(two_corpora, mix(two_corpora, np.arange(1100), weighted))
    assert abs(counts[1, "en"] / counts.total() - 0.75) < 0.02
    assert abs(counts[0, "zh"] / counts[0, "en"] - 1) < 0.15


def test_no_conversation_is_repeated_beyond_max_epochs(
    two_corpora: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    """What a weight asks beyond it is said, and not given."""
    mixed = mix(two_corpora, np.arange(1100), section({"weight": 1}, {"weight": 9}, max_epochs=2))
    assert max(Counter(mixed.tolist()).values()) == 2
    assert "corpus-1 5.4 times; data.max_epochs=2 limits it" in caplog.text


def test_epochs_that_leave_nothing_are_an_error(two_corpora: Documents) -> None:
    """A hundredth of three conversations."""
    with pytest.raises(DataError, match="the epochs leave no conversation to train on; raise them"):
        mix(two_corpora, np.arange(3), section({"epochs": 1e-4}, {}))


def test_settings_that_contradict_each_other_are_refused() -> None:
    """All problems at once: a missing weight, epochs beside a weight, a similarity that nothing would use."""
    with pytest.raises(ValidationError) as caught:
        section({"weight": 1, "epochs": 2}, {}, similarity=0.7, duplicates="exact")
    for problem in ("give every corpus a weight, or none", "keep one of the two", "goes with duplicates: near"):
        assert problem in str(caught.value)

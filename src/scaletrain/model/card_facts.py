"""What a model card states and the bucket knows: the data that the model learned from, and what was measured of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.checkpoint import Manifest
from scaletrain.layout import RunLayout

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class CorpusFacts:
    """One corpus as it was kept; licences and languages count conversations, "unknown" those of which nobody knows."""

    name: str
    conversations: int
    tokens: int
    supervised_tokens: int
    licences: Mapping[str, int]
    languages: Mapping[str, int]


@dataclass(frozen=True)
class DataFacts:
    """A prepared dataset; `rows` are the packed rows of its training split."""

    dataset_id: str
    seq_len: int
    rows: int
    corpora: tuple[CorpusFacts, ...]

    @property
    def languages(self) -> list[str]:
        """ISO 639 codes, those of most conversations first."""
        counts: dict[str, int] = {}
        for corpus in self.corpora:
            for language, count in corpus.languages.items():
                counts[language] = counts.get(language, 0) + count
        known = [code for code in counts if code != _UNKNOWN and code.isalpha() and 2 <= len(code) <= 3]
        return sorted(known, key=lambda code: (-counts[code], code))


@dataclass(frozen=True)
class Measured:
    """The perplexity of one corpus's held-out conversations, with the 95% interval where one was computed."""

    corpus: str
    value: float
    interval: tuple[float, float] | None
    before: float | None
    bits_per_byte: float | None
    tokens: int


def data_facts(run: RunLayout, manifest: Manifest) -> DataFacts | None:
    """What stats.json of the dataset says; None where the dataset is no longer there."""
    from scaletrain.data.statistics import STATISTICS
    from scaletrain.run_inputs import inputs_of

    url = storage.join(inputs_of(run, manifest).dataset_url, STATISTICS)
    if not storage.exists(url):
        return None
    written = orjson.loads(storage.read_bytes(url))
    corpora = tuple(
        CorpusFacts(
            name=each["name"],
            conversations=each["kept"],
            tokens=each["tokens"],
            supervised_tokens=each["supervised_tokens"],
            licences=each.get("licences", {}),
            languages=each.get("languages", {}),
        )
        for each in written["corpora"]
    )
    return DataFacts(written["dataset_id"], written["seq_len"], written["splits"]["train"]["rows"], corpora)


def measured(run: RunLayout, manifest: Manifest) -> list[Measured]:
    """The perplexities of this checkpoint beside those of the model before training; [] where nothing was measured."""
    records = _evaluations(run)
    after, before = _of(records, manifest.manifest_hash), _of(records, "")
    found = []
    for corpus, figures in after.items():
        interval = (figures["low"], figures["high"]) if "low" in figures and "high" in figures else None
        earlier = before[corpus]["perplexity"] if corpus in before else None
        bits = figures.get("bits_per_byte")
        found.append(Measured(corpus, figures["perplexity"], interval, earlier, bits, figures["tokens"]))
    return found


def _evaluations(run: RunLayout) -> list[dict[str, Any]]:
    files = [file.url for file in storage.list_objects(run.evaluation) if file.url.endswith(".json")]
    records = [orjson.loads(storage.read_bytes(url)) for url in files]
    return [record for record in records if isinstance(record, dict) and "perplexities" in record]


def _of(records: list[dict[str, Any]], checkpoint_hash: str) -> dict[str, dict[str, Any]]:
    """The figures of each corpus in the evaluation of one checkpoint; its hash is "" for the base model.

    The model of another run may have been measured beside it; such a record names that run.
    """
    for record in records:
        subject = record.get("subject", {})
        if subject.get("checkpoint") == checkpoint_hash and not subject.get("run"):
            return {each["corpus"]: each for each in record["perplexities"] if "corpus" in each}
    return {}

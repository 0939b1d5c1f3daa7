"""Two datasets side by side: settings, corpora, counts, and which conversations came and went, and why.

Conversations are compared by what they say after cleaning, as their keys in the provenance tell; what went is looked up
on the other side. Memory: some 40 bytes for each row that was read for either.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from scaletrain import storage
from scaletrain.data.provenance import read_provenance
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.data.statistics import KEPT, STATISTICS
from scaletrain.log import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

NOT_READ = "not read"
SAYS_OTHERWISE = "kept, but says something else now"
_EXAMPLES = 5

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Change:
    """Something that is not the same in both; None where one of them has no such thing."""

    name: str
    before: object
    after: object


@dataclass(frozen=True)
class Moves:
    """Conversations that only one of the two kept: how many, what the other did with them, and the sources of some."""

    conversations: int
    reasons: Mapping[str, int]
    examples: Sequence[str]


@dataclass(frozen=True)
class Difference:
    """All that is not the same in two datasets; `came` are kept in the second alone, `went` in the first alone."""

    before: str
    after: str
    settings: Sequence[Change]
    counts: Sequence[Change]
    in_both: int
    changed_split: int
    came: Moves
    went: Moves

    def record(self) -> dict[str, object]:
        """The difference as plain data."""
        return asdict(self)


def diff_datasets(before: str, after: str) -> Difference:
    """Compare two datasets by their URLs; raises DataError where one is none or has no provenance, StorageError."""
    indexes = [load_index(url) for url in (before, after)]
    statistics = [orjson.loads(storage.read_bytes(storage.join(url, STATISTICS))) for url in (before, after)]
    first, second = (_Rows.read(url, index) for url, index in zip((before, after), indexes, strict=True))
    of_settings = [
        {"tokenizer": index.tokenizer, "seq_len": index.seq_len, **_flat(_by_name(each.get("settings", {})))}
        for index, each in zip(indexes, statistics, strict=True)
    ]
    both = np.intersect1d(first.kept_keys(), second.kept_keys())
    return Difference(
        before=before,
        after=after,
        settings=_changes(*of_settings),
        counts=_changes(*(dict(_counts(each)) for each in statistics)),
        in_both=len(both),
        changed_split=int((first.splits_of(both) != second.splits_of(both)).sum()),
        came=second.moves(both, first, after, indexes[1]),
        went=first.moves(both, second, before, indexes[0]),
    )


def difference_display(found: Difference) -> "RenderableType":
    """A difference as a person reads it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: list[RenderableType] = [Text(f"A  {found.before}\nB  {found.after}")]
    for title, changes in (("setting", found.settings), ("count", found.counts)):
        table = Table(title, "A", "B")
        for change in changes:
            table.add_row(*(Text(_cell(each)) for each in (change.name, change.before, change.after)))
        shown.append(table if changes else Text(f"no {title} differs"))
    lines = [f"{found.in_both:,} conversations are kept in both, {found.changed_split:,} of them in another split"]
    for moves, verb, other in ((found.came, "came with B", "A"), (found.went, "went with B", "B")):
        lines.append(f"{moves.conversations:,} {verb}")
        lines += [f"  in {other}: {reason} {count:,}" for reason, count in moves.reasons.items()]
        lines += [f"  as {source}" for source in moves.examples]
    return Group(*shown, Text(visible("\n".join(lines))))


# ---- settings and counts -------------------------------------------------------------------------------------------


def _by_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the corpora under their names, so that one more does not shift the others."""
    corpora = {corpus.get("name") or corpus["format"]: corpus for corpus in settings.get("corpora", ())}
    return {**settings, "corpora": corpora}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested settings under dotted names."""
    flat: dict[str, object] = {}
    for name, each in value.items():
        flat |= _flat(each, f"{prefix}{name}.") if isinstance(each, dict) and each else {f"{prefix}{name}": each}
    return flat


def _counts(statistics: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for corpus in statistics["corpora"]:
        name = corpus["name"]
        for field in ("files", "read", "kept", "bad_rows", "turns", "tokens", "supervised_tokens"):
            yield f"{name}: {field}", corpus[field]
        for field in ("dropped", "licences", "languages"):
            yield from ((f"{name}: {field}: {word}", count) for word, count in corpus.get(field, {}).items())
    for split, each in statistics["splits"].items():
        for field in ("conversations", "rows", "tokens", "supervised_tokens", "packing_efficiency"):
            yield f"{split}: {field}", each[field]


def _changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[Change]:
    names = dict.fromkeys((*before, *after))
    return [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if type(value) is int else "-" if value is None else orjson.dumps(value).decode()


# ---- conversations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """A provenance as numbers, by row: hashes of key (0: none) and source, and numbers of outcome and split."""

    keys: Hashes
    sources: Hashes
    outcomes: npt.NDArray[np.int16]
    splits: npt.NDArray[np.int8]
    reasons: Sequence[str]  # the outcome 0 is KEPT

    @classmethod
    def read(cls, url: str, index: DatasetIndex) -> "_Rows":
        numbers, splits = {KEPT: 0}, {name: number for number, name in enumerate(index.splits)}
        parts: list[tuple[Any, ...]] = []
        for table in read_provenance(url, index, columns=["key", "source", "reason", "split"]):
            columns = table.to_pydict()
            parts.append(
                (
                    np.array([int(key[:16], 16) if key else 0 for key in columns["key"]], np.uint64),
                    np.array([xxhash.xxh3_64_intdigest(source.encode()) for source in columns["source"]], np.uint64),
                    np.array([numbers.setdefault(each or KEPT, len(numbers)) for each in columns["reason"]], np.int16),
                    np.array([splits.get(each, -1) for each in columns["split"]], np.int8),
                )
            )
        keys, sources, outcomes, of_split = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls(keys, sources, outcomes, of_split, list(numbers))

    def kept_keys(self) -> Hashes:
        return np.unique(self.keys[self.outcomes == 0])

    def splits_of(self, keys: Hashes) -> npt.NDArray[np.int8]:
        """The split of each of some kept keys."""
        kept = np.flatnonzero(self.outcomes == 0)
        kept = kept[np.argsort(self.keys[kept], kind="stable")]
        return self.splits[kept[np.searchsorted(self.keys[kept], keys)]]

    def moves(self, both: Hashes, other: "_Rows", url: str, index: DatasetIndex) -> Moves:
        """What is kept here and not in the other."""
        rows = np.flatnonzero((self.outcomes == 0) & ~np.isin(self.keys, both))
        reasons = Counter(other._outcomes(self.keys[rows], self.sources[rows]))
        return Moves(
            conversations=len(rows),
            reasons=dict(sorted(reasons.items(), key=lambda each: (-each[1], each[0]))),
            examples=_sources(url, index, rows[:_EXAMPLES]),
        )

    def _outcomes(self, keys: Hashes, sources: Hashes) -> Iterator[str]:
        """What became here of conversations that are not kept: by what they say, else by where they were read."""
        by_key, by_source = (
            dict(zip(own[rows].tolist(), rows.tolist(), strict=True))
            for own, wanted in ((self.keys, keys), (self.sources, sources))
            for rows in [np.flatnonzero(np.isin(own, wanted))]
        )
        for key, source in zip(keys.tolist(), sources.tolist(), strict=True):
            row = by_key.get(key, by_source.get(source))
            if row is None:
                yield NOT_READ
            else:
                reason = self.reasons[int(self.outcomes[row])]
                yield SAYS_OTHERWISE if reason == KEPT else reason


def _sources(url: str, index: DatasetIndex, rows: npt.NDArray[np.int64]) -> list[str]:
    """The sources of some rows of a provenance, ascending."""
    found: list[str] = []
    first = 0
    for table in read_provenance(url, index, columns=["source"]) if len(rows) else ():
        own = rows[(rows >= first) & (rows < first + len(table))] - first
        found += [str(table["source"][row].as_py()) for row in own.tolist()]
        first += len(table)
        if len(found) == len(rows):
            break
    return found

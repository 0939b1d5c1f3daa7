"""Counting what became of every row and every document, for stats.json."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scaletrain.config_annotations import counted_with
from scaletrain.data.documents import Documents, Ints
from scaletrain.data.formats import BAD_ROW
from scaletrain.data.leakage import LEAKED, Leakage
from scaletrain.data.provenance import in_order_of_reading
from scaletrain.data.row_plan import SplitPlan
from scaletrain.data.shards import SplitInfo
from scaletrain.data.statistics import (
    KEPT,
    UNKNOWN,
    AnnotationStatistics,
    CorpusStatistics,
    Flow,
    LeakageStatistics,
    SplitStatistics,
    StepStatistics,
)

_BAD_ROWS_SHOWN = 20


def corpus_statistics(
    documents: Documents,
    inside: npt.NDArray[np.bool_],
    trained: Ints,
    *,
    names: Sequence[str],
    num_files: Sequence[int],
) -> list[CorpusStatistics]:
    """Count what became of the rows `inside` the limits, by corpus; `trained` are the train split's, with repeats."""
    copies = np.bincount(documents.corpus[trained], minlength=len(names))
    once = np.bincount(documents.corpus[np.unique(trained)], minlength=len(names))
    rows = in_order_of_reading(documents, np.flatnonzero(inside))
    licences, languages = (_Words(documents.known[name]) for name in ("licence", "language"))
    statistics = []
    for corpus, (name, files) in enumerate(zip(names, num_files, strict=True)):
        own = rows[documents.corpus[rows] == corpus]
        kept = own[documents.has_document[own]]
        reasons = documents.reason[own]
        bad = own[reasons == BAD_ROW]
        first = {reason: int(row) for row, reason in zip(own[::-1], reasons[::-1], strict=True) if reason}
        dropped: Counter[str] = Counter()
        for reason, count in zip(reasons, documents.count[own].tolist(), strict=True):
            if reason not in (None, BAD_ROW):
                dropped[reason] += count
        bad_rows = int(documents.count[bad].sum())
        read = int(documents.count[own].sum()) - bad_rows
        statistics.append(
            CorpusStatistics(
                name=name,
                files=files,
                read=read,
                kept=read - dropped.total(),
                dropped=dict(sorted(dropped.items())),
                drop_examples={reason: documents.where(first[reason]) for reason in sorted(dropped)},
                bad_rows=bad_rows,
                bad_row_examples=[documents.where(int(row)) for row in bad[:_BAD_ROWS_SHOWN]],
                turns=int(documents.num_turns[kept].sum()),
                tokens=int(documents.num_tokens[kept].sum()),
                supervised_tokens=int(documents.num_supervised[kept].sum()),
                licences=licences.count(kept),
                languages=languages.count(kept),
                repeated=int(copies[corpus] - once[corpus]),
            )
        )
    return statistics


def flows(documents: Documents, inside: npt.NDArray[np.bool_], *, names: Sequence[str]) -> list[Flow]:
    """Count rows, turns and tokens by corpus, language and what became of them."""
    languages = _Words(documents.known["language"])
    found: dict[tuple[int, str, str], list[int]] = {}
    for row in np.flatnonzero(inside).tolist():
        key = (int(documents.corpus[row]), languages.word(row), documents.reason[row] or KEPT)
        sums = found.setdefault(key, [0, 0, 0])
        sums[0] += int(documents.count[row])
        sums[1] += int(documents.num_turns[row])
        sums[2] += int(documents.num_tokens[row])
    return [Flow(names[key[0]], *key[1:], *sums) for key, sums in sorted(found.items())]


def step_statistics(documents: Documents, inside: npt.NDArray[np.bool_]) -> list[StepStatistics]:
    """Count what each cleaning step changed and dropped, the busiest first."""
    flat: Any = pc.list_flatten(documents.known["changes"].filter(pa.array(inside)))
    changed = {str(each["values"]): int(each["counts"]) for each in flat.value_counts().to_pylist()}
    steps = _Words(documents.known["step"])
    dropped: dict[str, Counter[str]] = {}
    for row in np.flatnonzero(inside & (documents.reason != None)).tolist():  # noqa: E711 -- elementwise
        if (step := steps.word(row)) != UNKNOWN:
            dropped.setdefault(step, Counter())[documents.reason[row]] += 1
    found = [
        StepStatistics(name, changed.get(name, 0), dict(sorted(dropped.get(name, Counter()).items())))
        for name in sorted({*changed, *dropped})
    ]
    return sorted(found, key=lambda step: -step.changed - sum(step.dropped.values()))


def annotation_statistics(
    documents: Documents, inside: npt.NDArray[np.bool_], *, names: Sequence[str]
) -> list[AnnotationStatistics]:
    """Sum up the annotations of what was kept, by corpus, language and name."""
    languages = _Words(documents.known["language"])
    totals: Counter[tuple[int, str, str]] = Counter()  # in hundredths: whole numbers add up alike in any order
    rows: Counter[tuple[int, str, str]] = Counter()
    start = 0
    chunks: list[Any] = documents.known["annotations"].chunks
    for chunk in chunks:
        owners = start + np.repeat(np.arange(len(chunk)), np.diff(chunk.offsets.to_numpy()))
        start += len(chunk)
        words: Any = chunk.keys.dictionary_encode()
        number_of, values, found = words.indices.to_numpy(), chunk.items.to_numpy(), words.dictionary.to_pylist()
        for entry in np.flatnonzero((inside & documents.has_document)[owners]).tolist():
            row = int(owners[entry])
            key = (int(documents.corpus[row]), languages.word(row), str(found[number_of[entry]]))
            totals[key] += round(100 * values[entry])
            rows[key] += 1
    counted = {key: rows[(*key[:2], counted_with(key[2]))] for key in totals}
    return [
        AnnotationStatistics(names[key[0]], *key[1:], counted[key], total / 100, total / 100 / counted[key])
        for key, total in sorted(totals.items())
    ]


def leakage_statistics(
    documents: Documents, inside: npt.NDArray[np.bool_], leakage: Leakage | None
) -> list[LeakageStatistics]:
    """Count what was dropped for quoting a benchmark, by its file."""
    if leakage is None:
        return []
    leaked = np.flatnonzero(inside & (documents.reason == LEAKED))
    counts = Counter(documents.details(leaked)["detail"].to_pylist()) if len(leaked) else Counter()
    return [LeakageStatistics(file.url, file.items, file.too_short, counts[file.url]) for file in leakage.files]


class _Words:
    """A column of few different words: one number a row; a word that is null or empty is UNKNOWN."""

    def __init__(self, column: "pa.ChunkedArray[Any]") -> None:
        encoded: Any = column.dictionary_encode().combine_chunks()
        self._words: list[str] = [*(str(word or UNKNOWN) for word in encoded.dictionary.to_pylist()), UNKNOWN]
        self._numbers: Ints = encoded.indices.fill_null(len(self._words) - 1).to_numpy()

    def word(self, row: int) -> str:
        return self._words[int(self._numbers[row])]

    def count(self, rows: Ints) -> dict[str, int]:
        """Count the words of some rows, the most frequent first."""
        counts: Counter[str] = Counter()
        for word, count in zip(self._words, np.bincount(self._numbers[rows], minlength=len(self._words)), strict=True):
            counts[word] += int(count)
        return dict(sorted((+counts).items(), key=lambda each: (-each[1], each[0])))


def split_statistics(documents: Documents, plan: SplitPlan, written: SplitInfo, *, seq_len: int) -> SplitStatistics:
    """Count what became of a split's documents."""
    pieces: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for piece, reason in plan.dropped:
        pieces[reason] += 1
        tokens[reason] += piece.stop - piece.start
    return SplitStatistics(
        conversations=len(plan.documents),
        pieces=sum(map(len, plan.rows)),
        rows=written.rows,
        tokens=written.tokens,
        supervised_tokens=written.supervised_tokens,
        packing_efficiency=written.tokens / (written.rows * seq_len) if written.rows else 0.0,
        dropped_pieces=dict(sorted(pieces.items())),
        dropped_tokens=dict(sorted(tokens.items())),
        conversation_tokens=_histogram(documents.num_tokens[plan.documents]),
        conversation_turns=_histogram(documents.num_turns[plan.documents]),
    )


def _histogram(lengths: Ints) -> dict[str, int]:
    """Count lengths by the power of two that they do not exceed."""
    counts = Counter(1 << (length - 1).bit_length() for length in lengths.tolist())
    return {f"<= {bound}": counts[bound] for bound in sorted(counts)}

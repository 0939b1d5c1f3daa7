"""What became of every conversation: stats.json, and the errors that say which step left nothing over."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import orjson

from scaletrain.data.documents import Documents, Ints
from scaletrain.data.formats import BAD_ROW, too_many_bad_rows
from scaletrain.data.row_plan import SplitPlan
from scaletrain.data.shards import SplitInfo
from scaletrain.errors import DataError

_BAD_ROWS_SHOWN = 20


@dataclass(frozen=True)
class CorpusStatistics:
    """One corpus; of the conversations `read`, some were dropped and the others kept. Unreadable rows are none.

    turns (without system turns), tokens and supervised_tokens are those of the conversations kept. drop_examples names
    the first conversation dropped for each reason, bad_row_examples the first unreadable rows.
    """

    name: str
    files: int
    read: int
    kept: int
    dropped: Mapping[str, int]
    drop_examples: Mapping[str, str]
    bad_rows: int
    bad_row_examples: Sequence[str]
    turns: int
    tokens: int
    supervised_tokens: int


@dataclass(frozen=True)
class SplitStatistics:
    """One split; packing_efficiency is real tokens / slots, conversation_tokens a histogram of conversations' lengths.

    The conversations' tokens are those in rows plus those that packing dropped, counted by reason.
    """

    conversations: int
    pieces: int
    rows: int
    tokens: int
    supervised_tokens: int
    packing_efficiency: float
    dropped_pieces: Mapping[str, int]
    dropped_tokens: Mapping[str, int]
    conversation_tokens: Mapping[str, int]


@dataclass(frozen=True)
class Statistics:
    """The content of stats.json."""

    dataset_id: str
    seq_len: int
    corpora: Sequence[CorpusStatistics]
    splits: Mapping[str, SplitStatistics]

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    def summary(self) -> list[str]:
        """One line for each corpus and each split."""
        lines = []
        for corpus in self.corpora:
            lost = [f"{count:,} {reason}" for reason, count in corpus.dropped.items()]
            lost += [f"{corpus.bad_rows:,} unreadable rows"] if corpus.bad_rows else []
            line = f"{corpus.name}: {corpus.kept:,} of {corpus.read:,} conversations kept"
            lines.append(line + (f" (left out: {', '.join(lost)})" if lost else ""))
        for name, split in self.splits.items():
            line = (
                f"{name}: {split.conversations:,} conversations in {split.rows:,} rows of {self.seq_len:,} tokens, "
                f"{split.packing_efficiency:.1%} full, {split.supervised_tokens:,} tokens supervised"
            )
            lost = [f"{split.dropped_tokens[reason]:,} tokens, {reason}" for reason in split.dropped_pieces]
            lines.append(line + (f" (left out: {'; '.join(lost)})" if lost else ""))
        return lines


def corpus_statistics(
    documents: Documents, inside: npt.NDArray[np.bool_], *, names: Sequence[str], num_files: Sequence[int]
) -> list[CorpusStatistics]:
    """Count what became of the rows `inside` the limits, by corpus."""
    rows = np.flatnonzero(inside)
    rows = rows[np.lexsort((documents.row[rows], documents.file[rows], documents.corpus[rows]))]
    statistics = []
    for corpus, (name, files) in enumerate(zip(names, num_files, strict=True)):
        own = rows[documents.corpus[rows] == corpus]
        reasons = documents.reason[own]
        bad = own[reasons == BAD_ROW]
        first = {reason: int(row) for row, reason in zip(own[::-1], reasons[::-1], strict=True) if reason}
        dropped = Counter(reason for reason in reasons if reason not in (None, BAD_ROW))
        statistics.append(
            CorpusStatistics(
                name=name,
                files=files,
                read=len(own) - len(bad),
                kept=len(own) - len(bad) - dropped.total(),
                dropped=dict(sorted(dropped.items())),
                drop_examples={reason: documents.where(first[reason]) for reason in sorted(dropped)},
                bad_rows=len(bad),
                bad_row_examples=[documents.where(int(row)) for row in bad[:_BAD_ROWS_SHOWN]],
                turns=int(documents.num_turns[own].sum()),
                tokens=int(documents.num_tokens[own].sum()),
                supervised_tokens=int(documents.num_supervised[own].sum()),
            )
        )
    return statistics


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
    )


def check_rows(train: SplitStatistics, *, seq_len: int) -> None:
    """Raise DataError where packing left nothing to train on."""
    if not train.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in train.dropped_pieces.items())
        raise DataError(
            f"data.seq_len={seq_len} leaves nothing to train on: of {train.conversations} conversations packing "
            f"dropped all pieces ({reasons}); raise data.seq_len"
        )


def _histogram(lengths: Ints) -> dict[str, int]:
    """Count lengths by the power of two that they do not exceed."""
    counts = Counter(1 << (length - 1).bit_length() for length in lengths.tolist())
    return {f"<= {bound}": counts[bound] for bound in sorted(counts)}


def check_corpora(corpora: Sequence[CorpusStatistics], *, max_bad_rows: int) -> None:
    """Raise DataError for more unreadable rows than allowed, and for a corpus that gives no conversation at all."""
    if sum(corpus.bad_rows for corpus in corpora) > max_bad_rows:
        examples = [example for corpus in corpora for example in corpus.bad_row_examples]
        raise too_many_bad_rows(examples, max_bad_rows=max_bad_rows)
    for corpus in corpora:
        if corpus.kept:
            continue
        if not corpus.read:
            example = f"; {corpus.bad_rows} unreadable rows, as {corpus.bad_row_examples[0]}" if corpus.bad_rows else ""
            raise DataError(
                f"data.corpora: {corpus.name}: no conversation in {corpus.files} file(s){example}; "
                "check the source and the format"
            )
        reasons = "".join(
            f"\n  {count} {reason}, as {corpus.drop_examples[reason]}" for reason, count in corpus.dropped.items()
        )
        raise DataError(
            f"data.corpora: {corpus.name}: none of its {corpus.read} conversations can be used; check the format, or "
            f"relax the step of data.cleaning that leaves them out:{reasons}"
        )

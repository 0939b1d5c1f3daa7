"""What became of every conversation: stats.json, and the errors that say which step left nothing over."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import orjson

from scaletrain.data.formats import remedy, too_many_bad_rows
from scaletrain.errors import DataError

STATISTICS = "stats.json"
KEPT = "kept"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class CorpusStatistics:
    """One corpus; of the conversations `read`, some were dropped and the others kept. Unreadable rows are none.

    turns (without system turns), tokens and supervised_tokens are those of the conversations kept. drop_examples names
    the first conversation dropped for each reason, bad_row_examples the first unreadable rows. licences and languages
    count the conversations kept. repeated: the copies beyond the first that the mix trains on.
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
    licences: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0


@dataclass(frozen=True)
class Flow:
    """Rows of one corpus and language that fared alike; `outcome` is KEPT or the reason why they were left out.

    turns and tokens are those of rows that came to be tokenised: duplicates have some, what cleaning dropped has none.
    """

    corpus: str
    language: str
    outcome: str
    rows: int
    turns: int
    tokens: int


@dataclass(frozen=True)
class StepStatistics:
    """A cleaning step: how many conversations it changed, of whatever became of them then, and dropped by reason."""

    name: str
    changed: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class AnnotationStatistics:
    """What cleaning steps counted in the conversations kept of one corpus and language, by name: sum and mean.

    conversations: in how many something of its kind was counted, though it be 0 times; the mean is over these.
    """

    corpus: str
    language: str
    name: str
    conversations: int
    total: float
    mean: float


@dataclass(frozen=True)
class LeakageStatistics:
    """A benchmark file: its items, those too short to be looked for, and the conversations dropped for quoting it."""

    url: str
    items: int
    too_short: int
    conversations: int


@dataclass(frozen=True)
class SplitStatistics:
    """One split; packing_efficiency is real tokens / slots, conversation_tokens a histogram of conversations' lengths.

    The conversations' tokens are those in rows plus those that packing dropped, counted by reason; a conversation that
    the mix repeats counts as often as it is there.
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
    conversation_turns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Statistics:
    """The content of stats.json; `settings` are the recipe's version and those that determine the dataset."""

    dataset_id: str
    seq_len: int
    corpora: Sequence[CorpusStatistics]
    splits: Mapping[str, SplitStatistics]
    flows: Sequence[Flow] = ()
    steps: Sequence[StepStatistics] = ()
    annotations: Sequence[AnnotationStatistics] = ()
    leakage: Sequence[LeakageStatistics] = ()
    settings: Mapping[str, object] = field(default_factory=dict)

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
            if unlicensed := corpus.licences.get(UNKNOWN):
                lines.append(
                    f"{corpus.name}: no licence is known for {unlicensed:,} of them; set `licence` of the corpus"
                )
        for name, split in self.splits.items():
            line = (
                f"{name}: {split.conversations:,} conversations in {split.rows:,} rows of {self.seq_len:,} tokens, "
                f"{split.packing_efficiency:.1%} full, {split.supervised_tokens:,} tokens supervised"
            )
            lost = [f"{split.dropped_tokens[reason]:,} tokens, {reason}" for reason in split.dropped_pieces]
            lines.append(line + (f" (left out: {'; '.join(lost)})" if lost else ""))
        return lines


def check_rows(train: SplitStatistics, *, seq_len: int) -> None:
    """Raise DataError where packing left nothing to train on."""
    if not train.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in train.dropped_pieces.items())
        raise DataError(
            f"data.seq_len={seq_len} leaves nothing to train on: of {train.conversations} conversations packing "
            f"dropped all pieces ({reasons}); raise data.seq_len"
        )


def check_corpora(corpora: Sequence[CorpusStatistics], *, max_bad_rows: int) -> None:
    """Raise DataError for more unreadable rows than allowed, and for all corpora that give no conversation at all."""
    if sum(corpus.bad_rows for corpus in corpora) > max_bad_rows:
        examples = [example for corpus in corpora for example in corpus.bad_row_examples]
        raise too_many_bad_rows(examples, max_bad_rows=max_bad_rows)
    if problems := [_why_nothing(corpus) for corpus in corpora if not corpus.kept]:
        raise DataError("\n".join(problems))


def _why_nothing(corpus: CorpusStatistics) -> str:
    """What left nothing over of a corpus, and what to do."""
    if not corpus.read:
        examples = corpus.bad_row_examples
        example = f"; {corpus.bad_rows} unreadable rows, as {examples[0]}" if corpus.bad_rows else ""
        advice = remedy(examples) if examples else "check the source and the format"
        return f"data.corpora: {corpus.name}: no conversation in {corpus.files} file(s){example}; {advice}"
    reasons = "".join(
        f"\n  {count} {reason}, as {corpus.drop_examples[reason]}" for reason, count in corpus.dropped.items()
    )
    return (
        f"data.corpora: {corpus.name}: none of its {corpus.read} conversations can be used; check the format, or "
        f"relax the settings of the data section that leave them out:{reasons}"
    )

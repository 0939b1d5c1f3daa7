"""What is said in the corpora, one after the other: what a tokenizer is trained on before there is any dataset."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from scaletrain.config_data import Corpus, DataSection
from scaletrain.data.cleaning import clean, load_steps
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.formats import BAD_ROW, Rejected, list_files, read_conversations
from scaletrain.data.identity import corpus_names
from scaletrain.data.statistics import CorpusStatistics, check_corpora


def corpus_texts(section: DataSection) -> Iterator[str]:
    """Yield what is said in the cleaned conversations, one of each corpus in turn.

    Raises DataError, as preparing would, where all corpora were read to their ends and one of them gave nothing.
    """
    steps = load_steps(section)
    counts = [_Counts() for _ in section.corpora]
    reading = {
        number: read_conversations(corpus, max_bad_rows=section.max_bad_rows, on_rejected=counts[number].reject)
        for number, corpus in enumerate(section.corpora)
    }
    while reading:
        for number, conversations in list(reading.items()):
            conversation = next(conversations, None)
            if conversation is None:
                del reading[number]
                continue
            try:
                cleaned = clean(conversation, steps)
            except Drop as drop:
                counts[number].reject(Rejected(conversation.source, drop.reason, drop.detail))
                continue
            counts[number].kept += 1
            yield from _said(cleaned)
    found = [
        each.statistics(name, corpus)
        for each, name, corpus in zip(counts, corpus_names(section), section.corpora, strict=True)
    ]
    check_corpora(found, max_bad_rows=section.max_bad_rows)


def _said(conversation: Conversation) -> Iterator[str]:
    yield from (turn.content for turn in conversation.turns)
    if conversation.rejected is not None:
        yield conversation.rejected


@dataclass
class _Counts:
    """What became of a corpus's rows; `examples` has the first one of each reason."""

    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def reject(self, row: Rejected) -> None:
        self.rejected[row.reason] += row.count
        self.examples.setdefault(row.reason, f"{row.source}: {row.detail}" if row.detail else row.source)

    def statistics(self, name: str, corpus: Corpus) -> CorpusStatistics:
        dropped = {reason: count for reason, count in self.rejected.items() if reason != BAD_ROW}
        return CorpusStatistics(
            name=name,
            files=len(list_files(corpus)),
            read=self.kept + sum(dropped.values()),
            kept=self.kept,
            dropped=dropped,
            drop_examples=self.examples,
            bad_rows=self.rejected[BAD_ROW],
            bad_row_examples=[self.examples[BAD_ROW]] if BAD_ROW in self.examples else [],
            turns=0,
            tokens=0,
            supervised_tokens=0,
        )

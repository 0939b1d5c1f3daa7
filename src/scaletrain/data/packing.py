"""Conversations of any length into rows of seq_len tokens, with next to no room left over.

A conversation that fits into a row stays whole. A longer one is cut before a user's turn, so that every answer keeps
its question; where to cut is decided by the room that rows have left, which is how they come out full. Where a question
and its answer do not fit into a row together, neither is used: an answer to what the model cannot read teaches it to
make things up. What is not used is named, never lost: a turn longer than a row, an answer without its question, and a
piece without a supervised token.

Best fit by decreasing length is that of Ding et al. 2024 (arXiv:2404.10830). On a corpus of human chats whose median
is 450 tokens it fills rows of 256 to 89% if conversations are cut beforehand, and to 99.7% if rows choose the cuts.
Time grows with the number of turns (each step costs a few operations on seq_len bits), memory with the window.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

WINDOW_DOCUMENTS = 100_000

DropReason = Literal[
    "turn_longer_than_seq_len",
    "piece_without_supervised_tokens",
    "answer_without_its_question",
    "pair_longer_than_seq_len",
]


@dataclass(frozen=True, slots=True)
class Document:
    """A tokenised conversation, as the packer sees it: tokens of each turn, and how many of them are supervised.

    Turns alternate, and the first is the user's.
    """

    turn_lengths: Sequence[int]
    turn_supervised: Sequence[int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole turns of a document: its tokens from `start` to `stop`; `document` counts from the first one given."""

    document: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Packing:
    """One window's rows, and what was left out; every token of its documents is in exactly one piece of either."""

    rows: list[tuple[Piece, ...]]
    dropped: list[tuple[Piece, DropReason]]


def pack(documents: Iterable[Document], seq_len: int, *, window: int = WINDOW_DOCUMENTS) -> Iterator[Packing]:
    """Pack documents in windows of `window`; no row is longer than seq_len, and equal input gives equal rows.

    Documents should come shuffled: neighbours in a row are from the same window.
    """
    numbered = enumerate(documents)
    while batch := list(islice(numbered, window)):
        yield _pack_window(batch, seq_len)


@dataclass(slots=True)
class _Stretch:
    """Consecutive turns of a document that all fit into a row; packed from the front, `cursor` is the next turn."""

    document: int
    first_turn: int
    start: int  # token at which turn `cursor` begins
    lengths: Sequence[int]
    supervised: Sequence[int]
    remaining: int
    cursor: int = 0
    offers: dict[int, int] = field(default_factory=dict)  # tokens of a piece -> the turn it ends before

    def is_user(self, turn: int) -> bool:
        return (self.first_turn + turn) % 2 == 0

    def cut(self, stop: int) -> Piece:
        """Take the turns up to `stop` off the front."""
        num_tokens = sum(self.lengths[self.cursor : stop])
        piece = Piece(self.document, self.start, self.start + num_tokens)
        self.start, self.cursor, self.remaining = piece.stop, stop, self.remaining - num_tokens
        return piece


class _Shelf:
    """Pieces on offer by length; every length is also a bit, so that asking for a fit is an operation on integers."""

    def __init__(self, seq_len: int) -> None:
        self._seq_len = seq_len
        self._by_length: dict[int, dict[int, _Stretch]] = {}
        self.lengths = 0  # bit n: a piece of n tokens is on offer
        self._mirrored = 0  # the same at bit seq_len - n

    def complements(self, room: int) -> int:
        """Return the lengths below `room` which a piece from here would fill up to `room`, as bits."""
        return self._mirrored >> (self._seq_len - room) & ((1 << room) - 1)

    def add(self, stretch: _Stretch) -> None:
        for length in stretch.offers:
            self._by_length.setdefault(length, {})[id(stretch)] = stretch
            self.lengths |= 1 << length
            self._mirrored |= 1 << (self._seq_len - length)

    def take(self, length: int) -> _Stretch:
        """Take the stretch that offered this length first, with all its other offers.

        Taking turns keeps many stretches in play to the end, and with them a choice of lengths.
        """
        stretch = next(iter(self._by_length[length].values()))
        for offered in stretch.offers:
            del self._by_length[offered][id(stretch)]
            if not self._by_length[offered]:
                del self._by_length[offered]
                self.lengths &= ~(1 << offered)
                self._mirrored &= ~(1 << (self._seq_len - offered))
        return stretch


class _Offers:
    """What the next row may take: `whole` stretches that fit into a row, and first pieces `cut` off longer ones.

    Each stretch offers all of its possible next pieces. Those that have but one length go first, as long as there are
    others to complete them exactly.
    """

    def __init__(self, seq_len: int) -> None:
        self.whole = _Shelf(seq_len)
        self.cut = _Shelf(seq_len)

    def add(self, stretch: _Stretch) -> None:
        is_whole = stretch.remaining in stretch.offers
        (self.whole if is_whole else self.cut).add(stretch)

    def best(self, room: int) -> int:
        """Return the length to put into `room` next: what fills it, else half of a pair that does, else the longest."""
        either = self.whole.lengths | self.cut.lengths
        if either >> room & 1:
            return room
        below = (1 << room) - 1
        pairs_of_whole = self.whole.lengths & (self.whole.complements(room) | self.cut.complements(room))
        fitting = pairs_of_whole or self.cut.lengths & self.cut.complements(room) or either & below
        return max(fitting.bit_length() - 1, 0)

    def take(self, length: int) -> _Stretch:
        return (self.whole if self.whole.lengths >> length & 1 else self.cut).take(length)


def _pack_window(documents: Sequence[tuple[int, Document]], seq_len: int) -> Packing:
    packing = Packing([], [])
    offers = _Offers(seq_len)
    for number, document in documents:
        for stretch in _stretches(number, document, seq_len, packing):
            _offer(stretch, offers, seq_len, packing)
    while True:
        row: list[Piece] = []
        room = seq_len
        while room > 0 and (length := offers.best(room)):
            stretch = offers.take(length)
            row.append(stretch.cut(stretch.offers[length]))
            room -= length
            _offer(stretch, offers, seq_len, packing)
        if not row:
            return packing
        packing.rows.append(tuple(row))


def _stretches(number: int, document: Document, seq_len: int, packing: Packing) -> Iterator[_Stretch]:
    """Split a document at its turns that no row can hold, which are dropped."""
    lengths, supervised = document.turn_lengths, document.turn_supervised
    first, start = 0, 0
    for turn, length in enumerate((*lengths, seq_len + 1)):
        if length <= seq_len:
            continue
        num_tokens = sum(lengths[first:turn])
        if num_tokens:
            yield _Stretch(number, first, start, lengths[first:turn], supervised[first:turn], num_tokens)
        start += num_tokens
        if turn < len(lengths):
            packing.dropped.append((Piece(number, start, start + length), "turn_longer_than_seq_len"))
        first, start = turn + 1, start + length


def _offer(stretch: _Stretch, offers: _Offers, seq_len: int, packing: Packing) -> None:
    """Put a stretch's possible next pieces on offer; those that teach nothing, or the wrong thing, are dropped here."""
    while stretch.remaining:
        if not stretch.is_user(stretch.cursor):
            packing.dropped.append((stretch.cut(stretch.cursor + 1), "answer_without_its_question"))
            continue
        stretch.offers = _next_pieces(stretch, seq_len)
        # The other pieces all begin with the shortest, so they are of use where that one is.
        stop = min(stretch.offers.values())
        if any(stretch.supervised[stretch.cursor : stop]):
            offers.add(stretch)
            return
        packing.dropped.append((stretch.cut(stop), "piece_without_supervised_tokens"))


def _next_pieces(stretch: _Stretch, seq_len: int) -> dict[int, int]:
    """Map the lengths of a stretch's possible next pieces to the turn that each ends before."""
    num_turns = len(stretch.lengths)
    if stretch.remaining <= seq_len:
        return {stretch.remaining: num_turns}
    pieces, length, stop = {}, 0, stretch.cursor
    while length + stretch.lengths[stop] <= seq_len:
        length, stop = length + stretch.lengths[stop], stop + 1
        if stretch.is_user(stop) and stop < num_turns - 1:  # a last question stays with the exchange before it
            pieces[length] = stop
    return pieces or {length: stop}

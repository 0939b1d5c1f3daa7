"""What a format yields: conversations, and rows that gave none, each with its place and its reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from scaletrain.data.conversation import Conversation, Drop
from scaletrain.errors import DataError

BAD_ROW = "bad_row"
SAVE_AS_UTF8 = "save it as UTF-8 (as by iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW)"
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rows that gave no conversation: malformed (`reason` is BAD_ROW), or sound and of no use here.

    source: where the first of them was read. count: how many rows of the dump it stands for.
    """

    source: str
    reason: str
    detail: str = ""
    count: int = 1


Item = Conversation | Rejected


def parsed(parse: Callable[[Row], Conversation], row: Row, source: str) -> Item:
    """Make one row a conversation; what `parse` refuses with DataError or Drop is rejected under its reason."""
    try:
        conversation = replace(parse(row), source=source)
        for text in (*(turn.content for turn in conversation.turns), conversation.rejected or ""):
            text.encode()
        return conversation
    except UnicodeEncodeError as exc:
        return Rejected(source, BAD_ROW, f"text that is not valid Unicode: {exc.reason}")
    except Drop as drop:
        return Rejected(source, drop.reason, drop.detail)
    except DataError as exc:
        return Rejected(source, BAD_ROW, str(exc))


class Tally:
    """Counts rows that are left out by reason: a dump of a billion replies must not give a billion records."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str, source: str, count: int = 1) -> None:
        """Count rows under a reason; `source` is kept of the first only."""
        self._first.setdefault(reason, source)
        self._counts[reason] = self._counts.get(reason, 0) + count

    def rejected(self) -> Iterator[Rejected]:
        """Yield one record for each reason, by name."""
        for reason in sorted(self._counts):
            yield Rejected(self._first[reason], reason, count=self._counts[reason])

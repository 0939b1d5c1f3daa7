"""Which columns of a table mean what: `columns` of a corpus, checked, and rows made conversations by it.

Three shapes, told apart by what is named:

    {messages: M}                              a row is a conversation, M a list of messages
    {prompt: P, answer: A}                     a row is a conversation of two turns; {system: S} may go with it
    {conversation: C, speaker: S, text: T}     a row is a message, in the order of the file

{language: L} and {licence: L} may go with each, {id: I} with the first two. Without `columns`, a column messages or
conversations is read, and id where there is one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaletrain.data.conversation import Conversation, Turn, from_messages
from scaletrain.data.formats.grouping import Grouping
from scaletrain.data.formats.items import BAD_ROW, Item, Rejected, Tally, parsed
from scaletrain.data.formats.packages import two_speakers
from scaletrain.errors import DataError

SHAPES = (("messages",), ("prompt", "answer"), ("conversation", "speaker", "text"))
KNOWN = ("id", "language", "licence")
_NAMED_ROLES = {"system", "developer", "user", "human", "assistant", "gpt"}


def problems(columns: Mapping[str, str]) -> list[str]:
    """Say what is wrong with a column map, whatever the table; nothing where it can be used, or is empty."""
    if not columns:
        return []
    shapes = [shape for shape in SHAPES if set(shape) <= set(columns)]
    if len(shapes) != 1:
        described = "; or ".join(", ".join(shape) for shape in SHAPES)
        return [f"columns names {', '.join(columns)}; name one of these sets: {described}"]
    allowed = {*shapes[0], "language", "licence"}
    allowed |= {"id"} if "conversation" not in shapes[0] else set()
    allowed |= {"system"} if "prompt" in shapes[0] else set()
    return [
        f"columns.{name}: does not go with {', '.join(shapes[0])}; remove it" for name in columns if name not in allowed
    ]


@dataclass(frozen=True, slots=True)
class Columns:
    """A checked column map: meaning -> the table's name."""

    by_meaning: Mapping[str, str]

    @property
    def is_message_a_row(self) -> bool:
        return "conversation" in self.by_meaning

    def used(self) -> list[str]:
        """The table's columns that are read, each once."""
        return list(dict.fromkeys(self.by_meaning.values()))


def choose(columns: Mapping[str, str], available: Sequence[str], *, name: str) -> Columns:
    """Return the columns to read of a table; DataError, which names those that it has, where one is missing."""
    if not columns:
        found = [column for column in ("messages", "conversations") if column in available][:1]
        columns = {"messages": found[0]} if found else {"messages": "messages"}
        columns |= {"id": "id"} if "id" in available else {}
    missing = [column for column in columns.values() if column not in available]
    if missing:
        raise DataError(
            f"{name}: has no column {' and no '.join(missing)}, only {', '.join(available) or 'none at all'}; "
            "set columns of data.corpora, such as {prompt: question, answer: reply}"
        )
    return Columns(columns)


def conversations(rows: Iterator[tuple[str, dict[str, Any]] | Rejected], columns: Columns) -> Iterator[Item]:
    """Make conversations of a table's rows of (place, row); rows of one conversation are brought together on disk."""
    if not columns.is_message_a_row:
        for each in rows:
            yield each if isinstance(each, Rejected) else parsed(lambda row: _whole(row, columns), each[1], each[0])
        return
    with Grouping() as grouping:
        for each in rows:
            if isinstance(each, Rejected):
                yield each
                continue
            source, row = each
            try:
                key, speaker, text = (_cell(row, columns, name) for name in SHAPES[2])
                grouping.add(key, [source, speaker, text, [_optional(row, columns, name) for name in KNOWN]])
            except DataError as exc:
                yield Rejected(source, BAD_ROW, str(exc))
        tally = Tally()
        for group in grouping.groups():
            if group.rows is None:
                tally.add("thread_too_large", group.key, group.count)
                continue
            item = parsed(_of_messages, group.rows, group.rows[0][0])
            yield replace(item, count=group.count) if isinstance(item, Rejected) else replace(item, id=group.key)
        yield from tally.rejected()


def _whole(row: Mapping[str, Any], columns: Columns) -> Conversation:
    if "messages" in columns.by_meaning:
        conversation = from_messages(_list_of_messages(row[columns.by_meaning["messages"]]))
    else:
        system = _optional(row, columns, "system")
        turns = [Turn("system", system)] if system else []
        turns += [Turn("user", _cell(row, columns, "prompt")), Turn("assistant", _cell(row, columns, "answer"))]
        conversation = Conversation(tuple(turns))
    id_, language, licence = (_optional(row, columns, name) for name in KNOWN)
    return replace(conversation, id=id_, language=language, licence=licence)


def _of_messages(rows: Sequence[Sequence[Any]]) -> Conversation:
    """Of messages a row each: roles are those that the speakers are called by, else of two speakers in turn."""
    speakers = {speaker.lower() for _, speaker, _, _ in rows}
    if speakers <= _NAMED_ROLES:
        conversation = from_messages([{"role": speaker.lower(), "content": text} for _, speaker, text, _ in rows])
    else:
        conversation = two_speakers([(speaker, text) for _, speaker, text, _ in rows])
    _, language, licence = rows[0][3]
    return replace(conversation, language=language, licence=licence)


def _list_of_messages(value: object) -> object:
    """Hugging Face's older tables have an object of lists in place of a list of objects."""
    if isinstance(value, dict) and value and all(isinstance(each, list) for each in value.values()):
        return [dict(zip(value, each, strict=False)) for each in zip(*value.values(), strict=False)]
    if isinstance(value, str):  # of CSV, where a list is written as JSON
        import orjson

        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as exc:
            raise DataError(f"messages that are not JSON: {exc}") from exc
    return value


def _cell(row: Mapping[str, Any], columns: Columns, meaning: str) -> str:
    column = columns.by_meaning[meaning]
    value = row[column]
    if value is None or isinstance(value, (dict, list, bytes)):
        raise DataError(f"column {column} is {'empty' if value is None else type(value).__name__}, not text")
    return str(value)


def _optional(row: Mapping[str, Any], columns: Columns, meaning: str) -> str:
    column = columns.by_meaning.get(meaning)
    value = row[column] if column is not None else None
    return "" if value is None else str(value)

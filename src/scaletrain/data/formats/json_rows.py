"""The formats whose rows are JSON objects: chat messages, Alpaca's instructions, your own function's rows.

    messages     {"messages": [{"role", "content"}, ...]}, {"conversations": [{"from", "value"}, ...]}
    alpaca       {"instruction", "input", "output"}
    my_package.module:read_row      your own function dict -> Conversation

A file of JSON lines is read as a stream; one that is a JSON array is parsed in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation, Drop, Turn, from_messages
from scaletrain.data.formats.files import (
    MAX_LINE_BYTES,
    SourceFile,
    bare_name,
    load_json,
    opened,
    read_lines,
    read_whole,
)
from scaletrain.data.formats.items import BAD_ROW, Item, Rejected, parsed
from scaletrain.data.user_function import load_function
from scaletrain.errors import ConfigError, DataError, ScaletrainError

Parsed = TypeVar("Parsed")


def read_messages(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read rows of {"messages": [...]} or {"conversations": [...]}; a row may also be the list itself."""
    return _conversations(files, parse_messages)


def read_alpaca(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read rows of {"instruction", "input", "output"}; an input stands below its instruction."""
    return _conversations(files, _parse_alpaca)


def user_format(name: str) -> Callable[[Sequence[SourceFile], Corpus], Iterator[Item]]:
    """Return the format that calls the user's function with each row; ConfigError where there is no such function."""
    read_row = load_function(name, setting="data.corpora")

    def parse(row: object) -> Conversation:
        try:
            conversation = read_row(row)
        except (Drop, ScaletrainError):
            raise
        except Exception as exc:  # one row that the user's function cannot take is a bad row like any other
            raise DataError(f"{name} raised {type(exc).__name__}: {exc}") from exc
        if not isinstance(conversation, Conversation):
            raise ConfigError(
                f"data.corpora: {name} returned {type(conversation).__name__}; it must return a "
                "scaletrain.data.conversation.Conversation, or raise its Drop"
            )
        return conversation

    return lambda files, corpus: _conversations(files, parse)


def parse_messages(row: object) -> Conversation:
    """Make a conversation of a row of the messages format; DataError and Drop as `from_messages`."""
    if not isinstance(row, dict):
        return from_messages(row)
    keys = [key for key in ("messages", "conversations") if key in row]
    if not keys:
        raise DataError(f"no messages and no conversations, only {', '.join(map(str, row)) or 'nothing'}")
    conversation = from_messages(row[keys[0]])
    return replace(conversation, id=str(row["id"])) if isinstance(row.get("id"), (str, int)) else conversation


def json_rows(file: SourceFile) -> Iterator[tuple[str, object] | Rejected]:
    """Yield (place, value) of each row of JSON lines, or of one array in a file not named .jsonl.

    Blank lines are no rows. A line that is not JSON, or too long, is yielded as rejected.
    """
    with opened(file) as stream:
        is_lines = bare_name(file.name).endswith((".jsonl", ".ndjson"))
        if not is_lines and stream.peek(64).lstrip().startswith(b"["):
            rows = load_json(read_whole(stream, file.name), file.name)
            assert isinstance(rows, list)
            yield from ((f"{file.name}:row {number}", row) for number, row in enumerate(rows, start=1))
            return
        for number, offset, line in read_lines(stream):
            if line is None:
                detail = f"a line of more than {MAX_LINE_BYTES:,} bytes (at byte {offset})"
                yield Rejected(f"{file.name}:{number}", BAD_ROW, detail)
            elif line.strip():
                try:
                    yield f"{file.name}:{number}", orjson.loads(line)
                except orjson.JSONDecodeError as exc:
                    yield Rejected(f"{file.name}:{number}", BAD_ROW, f"not JSON: {exc} (at byte {offset})")


def parsed_rows(file: SourceFile, parse: Callable[[object, str], Parsed]) -> Iterator[tuple[str, Parsed] | Rejected]:
    """Yield (place, what `parse` makes of a row and its place) of each row; what it refuses with DataError is rejected.

    Only of parsing does a DataError make a bad row: what is done with the result is the caller's, and its errors are.
    """
    for each in json_rows(file):
        if isinstance(each, Rejected):
            yield each
            continue
        source, row = each
        try:
            value = parse(row, source)
        except DataError as exc:
            yield Rejected(source, BAD_ROW, str(exc))
        else:
            yield source, value


def _conversations(files: Sequence[SourceFile], parse: Callable[[object], Conversation]) -> Iterator[Item]:
    for file in files:
        for each in json_rows(file):
            yield each if isinstance(each, Rejected) else parsed(parse, each[1], each[0])


def _parse_alpaca(row: object) -> Conversation:
    if not isinstance(row, dict):
        raise DataError("not an object")
    missing = [key for key in ("instruction", "output") if not isinstance(row.get(key), str)]
    if missing:
        raise DataError(f"no text under {' and '.join(missing)}, only {', '.join(map(str, row)) or 'nothing'}")
    more = row.get("input") or ""
    if not isinstance(more, str):
        raise DataError("input is not text")
    prompt = f"{row['instruction']}\n\n{more}" if more.strip() else row["instruction"]
    return Conversation((Turn("user", prompt), Turn("assistant", row["output"])))

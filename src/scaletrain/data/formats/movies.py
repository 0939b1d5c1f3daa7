"""Dialogues of Cornell's movie corpus, and every other corpus in ConvoKit's shape.

    cornell   movie_lines.txt and movie_conversations.txt, fields between " +++$+++ ", in Windows' Western encoding
    convokit  utterances.jsonl: a line an utterance, with its conversation_id and what it replies to

The lines of the classic corpus are held in memory (34 MB of text; at most MAX_PARSED_BYTES). Each utterance that is in
no conversation is counted.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.formats.files import (
    MAX_LINE_BYTES,
    MAX_PARSED_BYTES,
    SourceFile,
    bare_name,
    folder_of,
    opened,
    read_lines,
)
from scaletrain.data.formats.grouping import Grouping
from scaletrain.data.formats.items import BAD_ROW, Item, Rejected, Tally, parsed
from scaletrain.data.formats.json_rows import parsed_rows
from scaletrain.data.formats.packages import two_speakers
from scaletrain.data.formats.threads import Post, posts_of, read_threads, to_row
from scaletrain.errors import DataError

LINES = "movie_lines.txt"
CONVERSATIONS = "movie_conversations.txt"
_SEPARATOR = " +++$+++ "
_ID = re.compile(r"'([^']*)'")


def read_cornell(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read movie_conversations.txt, each with its lines of movie_lines.txt beside it.

    Raises DataError where one of the two files is missing.
    """
    by_name = {bare_name(file.name): file for file in files}
    wanted = [file for name, file in by_name.items() if name.endswith(CONVERSATIONS)]
    for file in wanted or files[:1]:
        beside = folder_of(file.name) + (LINES if wanted else CONVERSATIONS)
        if not wanted or beside not in by_name:
            raise DataError(f"{file.name}: there is no {beside} beside it; the format cornell needs both files")
        yield from _read_pair(file, by_name[beside])


def read_convokit(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read utterances.jsonl of a corpus of ConvoKit's; of a conversation that branches the first replies."""
    tally = Tally()
    with Grouping() as conversations:
        for file in files:
            for each in parsed_rows(file, lambda row, source: (_conversation_id(row), _utterance(row, source))):
                if isinstance(each, Rejected):
                    yield each
                else:
                    key, utterance = each[1]
                    conversations.add(f"{folder_of(file.name)} {key}", to_row(utterance))
        for group in conversations.groups():
            yield from read_threads(posts_of(group, tally), tally, orphans_begin=False)
    yield from tally.rejected()


def _read_pair(conversations: SourceFile, lines: SourceFile) -> Iterator[Item]:
    said: dict[str, tuple[str, str]] = {}  # id of a line -> (speaker, text)
    size_bytes = 0
    for source, fields in _fields(lines, num_fields=5):
        if isinstance(fields, Rejected):
            yield fields
            continue
        line_id, speaker, _, _, text = fields
        if line_id in said:
            yield Rejected(source, "duplicate_id")
            continue
        said[line_id] = (speaker, text)
        size_bytes += len(text)
        if size_bytes > MAX_PARSED_BYTES:
            raise DataError(f"{lines.name}: more than {MAX_PARSED_BYTES:,} characters are not held in memory")
    used: set[str] = set()

    def parse(fields: Sequence[str]) -> Conversation:
        ids = _ID.findall(fields[3])
        missing = [each for each in ids if each not in said]
        if missing or not ids:
            raise DataError(f"the line {missing[0]} is not in {lines.name}" if missing else "no list of lines")
        if len(ids) < 2:
            raise Drop("no_reply")
        used.update(ids)
        return two_speakers([said[each] for each in ids])

    for source, fields in _fields(conversations, num_fields=4):
        yield fields if isinstance(fields, Rejected) else parsed(parse, fields, source)
    if len(said) > len(used):
        yield Rejected(lines.name, "in_no_conversation", count=len(said) - len(used))


def _fields(file: SourceFile, *, num_fields: int) -> Iterator[tuple[str, list[str] | Rejected]]:
    with opened(file) as stream:
        for number, offset, line in read_lines(stream):
            source = f"{file.name}:{number}"
            if line is None:
                detail = f"a line of more than {MAX_LINE_BYTES:,} bytes (at byte {offset})"
                yield source, Rejected(source, BAD_ROW, detail)
            elif line.strip():
                fields = _text(line).rstrip("\r\n").split(_SEPARATOR, num_fields - 1)
                if len(fields) == num_fields - 1 and num_fields == 5:  # nothing is said: the last blank is cut off
                    fields[-1:] = [fields[-1].removesuffix(_SEPARATOR.rstrip()), ""]
                good = len(fields) == num_fields
                detail = f"{len(fields)} fields between {_SEPARATOR.strip()}, not {num_fields} (at byte {offset})"
                yield source, [field.strip() for field in fields] if good else Rejected(source, BAD_ROW, detail)


def _text(line: bytes) -> str:
    """The corpus is cp1252 (with some bytes that this lacks), its re-releases are UTF-8."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1")


def _conversation_id(row: object) -> str:
    """The conversation that an utterance belongs to; older corpora call it root."""
    key = (row.get("conversation_id") or row.get("root")) if isinstance(row, dict) else None
    if not isinstance(key, (str, int)):
        raise DataError("an utterance without conversation_id")
    return str(key)


def _utterance(row: Any, source: str) -> Post:
    speaker = row.get("speaker") or row.get("user")
    if isinstance(speaker, dict):
        speaker = speaker.get("id")
    text, reply_to = row.get("text"), row.get("reply-to", row.get("reply_to"))
    missing = [
        name for name, value in (("id", row.get("id")), ("speaker", speaker)) if not isinstance(value, (str, int))
    ]
    missing += [] if isinstance(text, str) else ["text"]
    if missing:
        raise DataError(f"an utterance without {', '.join(missing)}, only {', '.join(map(str, row))}")
    time = row.get("timestamp")
    time_s = float(time) if isinstance(time, (int, float)) else 0.0
    return Post(str(row["id"]), str(reply_to or ""), str(speaker), str(text), 0.0, time_s, None, source)

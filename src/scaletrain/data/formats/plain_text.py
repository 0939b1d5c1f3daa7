"""Plain text: an utterance a line, an empty line between two dialogues.

    text       lines of subtitles and the like: two people who speak in turn, the first is the user
    chat_log   "name: text" lines; a line without a name goes on with what was said before

A dialogue of more than MAX_DIALOGUE_LINES lines is rejected as a whole: a text without empty lines is no dialogue.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation, Turn
from scaletrain.data.formats.files import MAX_LINE_BYTES, SourceFile, opened, read_lines
from scaletrain.data.formats.items import BAD_ROW, Item, Rejected, parsed
from scaletrain.data.formats.packages import two_speakers
from scaletrain.errors import DataError

MAX_DIALOGUE_LINES = 10_000
_SPEAKER = re.compile(r"([^\s:][^:]{0,39}):(?:\s+(.*))?", re.S)


def read_text(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read dialogues whose speakers are not named; a line is a turn."""

    def parse(lines: list[str]) -> Conversation:
        return Conversation(tuple(Turn("assistant" if i % 2 else "user", line) for i, line in enumerate(lines)))

    return _dialogues(files, parse)


def read_chat_log(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read dialogues of two named speakers."""

    def parse(lines: list[str]) -> Conversation:
        utterances: list[tuple[str, str]] = []
        for line in lines:
            if match := _SPEAKER.fullmatch(line):
                utterances.append((match[1].strip(), match[2] or ""))
            elif utterances:
                speaker, text = utterances[-1]
                utterances[-1] = (speaker, f"{text}\n{line}")
            else:
                raise DataError(
                    "the first line has no 'name: ' before what is said (what WhatsApp exported is format: whatsapp)"
                )
        return two_speakers(utterances)

    return _dialogues(files, parse)


def _dialogues(files: Sequence[SourceFile], parse: Callable[[list[str]], Conversation]) -> Iterator[Item]:
    for file in files:
        for source, lines in _blocks(file):
            yield lines if isinstance(lines, Rejected) else parsed(parse, lines, source)


def _blocks(file: SourceFile) -> Iterator[tuple[str, list[str] | Rejected]]:
    """Yield the lines between empty lines with the place of the first of them, or why they cannot be read."""
    with opened(file) as stream:
        first, lines, size_bytes, fault = 0, list[str](), 0, ""
        for number, offset, line in chain(read_lines(stream), [(0, 0, b"")]):
            if line is not None and not line.strip():
                if first:
                    source = f"{file.name}:{first}"
                    yield source, Rejected(source, BAD_ROW, fault) if fault else lines
                first, lines, size_bytes, fault = 0, [], 0, ""
                continue
            first = first or number
            size_bytes += len(line or b"")
            if fault:
                continue
            if line is None or size_bytes > MAX_LINE_BYTES or len(lines) == MAX_DIALOGUE_LINES:
                fault = f"no empty line in {MAX_DIALOGUE_LINES:,} lines or {MAX_LINE_BYTES:,} bytes (at byte {offset})"
            else:
                try:
                    lines.append(line.decode().strip())
                except UnicodeDecodeError as exc:
                    fault = f"not UTF-8: {exc.reason} (at byte {offset + exc.start})"
            lines = [] if fault else lines

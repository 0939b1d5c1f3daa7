"""The text file that WhatsApp makes of a chat ("Export chat"), from Android and from iPhones, in any language.

    12/31/21, 9:41 PM - Ana: text          [31.12.21, 21:41:03] Ana: text

A message may have several lines. The messages of one day are a conversation, for an export has no other ends. Left out
and counted are the app's own lines, which have no name, and what stands for pictures and for deleted messages.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from scaletrain.config_data import Corpus
from scaletrain.data.formats.files import SourceFile, opened, read_lines
from scaletrain.data.formats.items import BAD_ROW, Item, Rejected, Tally, parsed
from scaletrain.data.formats.packages import two_speakers

MAX_DAY_CHARS = 64 * 2**20
_TOO_LONG = "more than 64 MiB of characters on one day"

# Numbers are in any script's digits, spaces may be narrow or not break, and what says am or pm is in any language.
_DATE = r"(?P<date>\d{1,4}[./-] ?\d{1,2}[./-] ?\d{1,4}\.?)"
_TIME = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?"
_ANDROID = re.compile(rf"{_DATE}[,،]?\s[^\d\n-]{{0,10}}{_TIME}[^\d\n-]{{0,10}}\s[-–]\s(?P<rest>.*)", re.S)
_IPHONE = re.compile(rf"\[{_DATE}[,،]?\s[^\d\]]{{0,10}}{_TIME}[^\d\]]{{0,10}}\]\s(?P<rest>.*)", re.S)
# A name has no quotation mark: what has one before the colon is the app's line of a subject that somebody changed.
_NAMED = re.compile(r"(?P<name>[^:\n\"“”«»„]{1,80}):(?:\s(?P<text>.*))?", re.S)
_MARKS = "\u200e\u200f\u202a\u202b\u202c\ufeff"  # of direction, before dates, names and the app's own words
_APP = "\u200e"  # an iPhone's export has it before each of the app's own words
_MEDIA = re.compile(r"<[^<>\n]{2,80}>|\S+\.\w{2,5} \([^()\n]{2,60}\)")
_EDITED = re.compile(r"\s*\u200e?<[^\W\d_]+(?: [^\W\d_]+[.!]?){2,}>$")
_DELETED = {
    "null",
    "this message was deleted",
    "you deleted this message",
    "diese nachricht wurde gelöscht",
    "du hast diese nachricht gelöscht",
    "se eliminó este mensaje",
    "eliminaste este mensaje",
    "ce message a été supprimé",
    "vous avez supprimé ce message",
    "questo messaggio è stato eliminato",
    "hai eliminato questo messaggio",
    "mensagem apagada",
    "essa mensagem foi apagada",
    "此消息已删除",
    "你删除了这条消息",
}


def read_whatsapp(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read exported chats of two people, a conversation a day; who writes first that day is the user."""
    for file in files:
        tally = Tally()
        for day in _days(file, tally):
            if day.fault:
                yield Rejected(day.source, BAD_ROW, day.fault)
            elif day.said:
                yield parsed(two_speakers, day.said, day.source)
        yield from tally.rejected()


@dataclass
class _Day:
    """What was said on one day; `fault`: why none of it can be used."""

    source: str
    date: str
    said: list[tuple[str, str]] = field(default_factory=list)
    chars: int = 0
    fault: str = ""


def _days(file: SourceFile, tally: Tally) -> Iterator[_Day]:
    """Yield the days of an export; lines before the first message are a day of their own, with a fault."""
    day: _Day | None = None
    for source, date, rest, fault in _messages(file):
        if day is None or date != day.date:
            if day is not None:
                yield day
            day = _Day(source, date)
        day.chars += len(rest)
        if fault or day.chars > MAX_DAY_CHARS:
            day.fault = day.fault or fault or _TOO_LONG
            day.said = []
        elif day.fault:
            continue
        elif (match := _NAMED.fullmatch(rest)) is None:
            tally.add("system_message", source)
        elif (text := _written(match["text"] or "")) is None:
            tally.add("media_or_deleted", source)
        else:
            day.said.append((match["name"].strip(f"{_MARKS} ~\u00a0\u202f"), text))
    if day is not None:
        yield day


def _written(text: str) -> str | None:
    """What a person wrote; None for what the app wrote in the person's place."""
    if text.startswith(_APP):
        return None
    text = _EDITED.sub("", text.replace(_APP, "")).strip()
    is_app = _MEDIA.fullmatch(text) or text.rstrip(".。").lower() in _DELETED
    return None if is_app else text


def _messages(file: SourceFile) -> Iterator[tuple[str, str, str, str]]:
    """Yield (place, date, name and text, fault) of each message; the lines that go on with it are put behind it."""
    source, date, parts, chars, fault = "", "", list[str](), 0, ""
    with opened(file) as stream:
        for number, offset, line in read_lines(stream):
            text, problem = _decoded(line, offset)
            bare = text.lstrip(_MARKS)
            match = _ANDROID.fullmatch(bare) or _IPHONE.fullmatch(bare)
            if match is not None or not source:
                if source:
                    yield source, date, "\n".join(parts), fault
                source, date, fault = f"{file.name}:{number}", match["date"] if match else "", problem
                parts, chars = [match["rest"].lstrip(_MARKS)] if match else [], 0
                if match is None and not problem:
                    if not text.strip():
                        source = ""
                        continue
                    fault = (
                        "begins with no date and time as WhatsApp's exports do (12/31/21, 9:41 PM - Name: text); for "
                        "lines of `name: text` alone use format: chat_log"
                    )
            else:
                chars += len(text) + 1
                fault = fault or problem or (_TOO_LONG if chars > MAX_DAY_CHARS else "")
                if not fault:
                    parts.append(text)
    if source:
        yield source, date, "\n".join(parts), fault


def _decoded(line: bytes | None, offset: int) -> tuple[str, str]:
    """A line as text, without its end, or what is wrong with it."""
    if line is None:
        return "", f"a line that is too long (at byte {offset})"
    try:
        return line.decode().rstrip("\r\n"), ""
    except UnicodeDecodeError as exc:
        return line.decode(errors="replace").rstrip("\r\n"), f"not UTF-8: {exc.reason} (at byte {offset + exc.start})"

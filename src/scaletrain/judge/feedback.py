"""The thumbs that users of a served model gave, as `scaletrain serve` writes them.

{"time": "...", "model": "...", "messages": [...], "answer": "...", "vote": "up"}
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from scaletrain import storage
from scaletrain.errors import ConfigError
from scaletrain.judge.items import message_problems
from scaletrain.log import get_logger

_PROBLEMS_SHOWN = 20

log = get_logger(__name__)


@dataclass(frozen=True)
class Feedback:
    """A thumb that a user of a served model gave an answer, with what they said to it, if anything."""

    time: str
    model: str
    messages: tuple[dict[str, str], ...]
    answer: str
    vote: Literal["up", "down"]
    comment: str = ""

    @property
    def id(self) -> str:
        """Hash of it all: the same line of a file is imported once."""
        return hashlib.sha256(orjson.dumps(asdict(self))).hexdigest()[:32]


def read_feedback(url: str) -> list[Feedback]:
    """Read a file of thumbs without the lines that are none, with a warning; ConfigError where no line is one.

    Anybody may send thumbs, and a crash may leave half a line: one line must not keep the others out.
    """
    found, problems = [], []
    for number, line in enumerate(storage.read_bytes(url).splitlines(), 1):
        if line.strip():
            try:
                found.append(feedback_of(orjson.loads(line)))
            except ValueError as exc:
                problems.append(f"{url}:{number}: {exc}")
    more = [f"and {len(problems) - _PROBLEMS_SHOWN} more lines"] if len(problems) > _PROBLEMS_SHOWN else []
    shown = problems[:_PROBLEMS_SHOWN] + more
    if problems and not found:
        raise ConfigError(shown)
    if problems:
        log.warning("%d lines are no thumbs and are left out:\n%s", len(problems), "\n".join(shown))
    return found


def feedback_of(record: Any) -> Feedback:
    """The thumb of one line that `scaletrain serve` wrote; ValueError says what is wrong."""
    if not isinstance(record, dict):
        raise ValueError("is not an object")
    problems = [f'"{name}" has to be a text' for name in ("time", "model", "answer") if not _is_text(record, name)]
    if not isinstance(record.get("comment", ""), str):
        problems.append('"comment" has to be a text')
    problems += message_problems(record.get("messages"))
    if record.get("vote") not in ("up", "down"):
        problems.append('"vote" has to be "up" or "down"')
    if problems:
        raise ValueError("; ".join(problems))
    messages = tuple({"role": each["role"], "content": each["content"]} for each in record["messages"])
    return Feedback(
        record["time"], record["model"], messages, record["answer"], record["vote"], record.get("comment", "")
    )


def _is_text(record: dict[str, Any], name: str) -> bool:
    return isinstance(record.get(name), str)

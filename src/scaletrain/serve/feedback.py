"""Thumbs up and down of the web chat, kept as JSON lines that `scaletrain judge` reads as votes."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from scaletrain.errors import ConfigError
from scaletrain.serve.api_errors import ApiError, invalid
from scaletrain.serve.api_request import parse_object


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


def _asked(messages: list[_Said]) -> list[_Said]:
    """`scaletrain judge` takes answers to what a user said."""
    if messages[-1].role != "user":
        raise ValueError("the last message has to be the user's; give the answer as answer")
    return messages


class _Feedback(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[list[_Said], Field(min_length=1), AfterValidator(_asked)]
    answer: Annotated[str, Field(min_length=1)]
    vote: Literal["up", "down"]
    comment: Annotated[str, Field(max_length=10_000)] | None = None


class FeedbackFile:
    """A file that votes are appended to; each is on the disk before its client is told so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()
        except OSError as exc:
            raise ConfigError(f"serve.feedback={path}: cannot be written ({exc.strerror}); name another file") from exc

    def add(self, body: bytes) -> None:
        """Keep one vote; raises ApiError where it makes no sense, or cannot be kept."""
        try:
            vote = _Feedback.model_validate(parse_object(body))
        except ValidationError as exc:
            raise invalid(
                [(".".join(map(str, each["loc"])), each["msg"]) for each in exc.errors(include_url=False)]
            ) from exc
        record: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **vote.model_dump(exclude_none=True),
        }
        line = orjson.dumps(record) + b"\n"
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if _ends_within_a_line(file):
                    line = b"\n" + line
                if os.write(file, line) != len(line):  # one write: lines of several servers do not mix
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as exc:
            raise ApiError(
                503, f"the vote could not be kept ({exc.strerror}); send it again", code="not_stored", retry_after_s=1
            ) from exc


def _ends_within_a_line(file: int) -> bool:
    """A full disk or a crash may have left half a line; it must not take the next one with it."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"

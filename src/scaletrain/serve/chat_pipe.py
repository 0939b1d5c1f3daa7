"""A chat without a terminal: one question and its answer, or a JSONL file of conversations, each answered."""

from collections.abc import Iterable
from typing import BinaryIO, TextIO

import orjson

from scaletrain.errors import ConfigError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.model.sampling import Sampling
from scaletrain.serve.chat_model import ChatModel
from scaletrain.serve.chat_session import ChatSession, answer_of, read_messages

log = get_logger(__name__)


def read_question(source: BinaryIO) -> str:
    """All of a pipe as one question; raises ConfigError where it is no text."""
    data = source.read()
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"stdin is not UTF-8 text (byte {exc.start}); convert it first") from exc


def answer_once(session: ChatSession, question: str, output: TextIO) -> None:
    """Write the answer to one question as it comes, and a newline; raises ConfigError for an empty question."""
    if not question.strip():
        raise ConfigError("the question is empty; write it to stdin, or give --prompt")
    for piece in session.ask(question.strip()):
        output.write(piece)
        output.flush()
    output.write("\n")
    output.flush()


def answer_lines(
    model: ChatModel, lines: Iterable[bytes], output: BinaryIO, sampling: Sampling, *, system_prompt: str | None
) -> None:
    """Answer conversations line by line: each comes out with the answer as its last message, its other fields kept.

    `system_prompt` is for those that have none. A line that cannot be answered comes out as {"error": ...}, so that
    output and input agree line by line; at the end ConfigError says how many there were.
    """
    failed = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            answered = _answered(model, line, sampling, system_prompt, where=f"line {number}")
        except ScaletrainError as error:
            failed += 1
            log.warning("line %d: %s", number, error)
            answered = {"error": str(error)}
        output.write(orjson.dumps(answered, option=orjson.OPT_APPEND_NEWLINE))
        output.flush()
    if failed:
        raise ConfigError(f"{failed} of the conversations could not be answered; their lines hold the error instead")


def _answered(
    model: ChatModel, line: bytes, sampling: Sampling, system_prompt: str | None, *, where: str
) -> dict[str, object]:
    messages = read_messages(line, where=where)
    if system_prompt is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system_prompt}, *messages]
    answer = answer_of(model, messages, sampling)
    record: dict[str, object] = orjson.loads(line)
    return {**record, "messages": [*messages, {"role": "assistant", "content": answer}]}

"""One conversation with one model: what was said, how answers are sampled, and what the last one cost."""

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from scaletrain.errors import ConfigError, ModelError
from scaletrain.model.sampling import Sampling
from scaletrain.serve.chat_model import ChatModel, Tally

Pieces = Generator[str, None, None]

_ROLES = ("system", "user", "assistant")


@dataclass
class Timed:
    """The last answer: its tokens, and when its first and its last piece came, in seconds after the question."""

    tally: Tally = field(default_factory=Tally)
    first_s: float | None = None
    last_s: float = 0.0

    def line(self, context_tokens: int | None) -> str:
        """One line for people; empty where the model did not tell its tokens.

        Tokens a second are those after the first piece: before it the model reads, and makes none.
        """
        prompt, answer = self.tally.prompt_tokens, self.tally.answer_tokens
        if answer is None or self.first_s is None:
            return ""
        parts = [f"{answer:,} {'token' if answer == 1 else 'tokens'}"]
        if answer > 1 and self.last_s > self.first_s:
            parts[0] += f" at {(answer - 1) / (self.last_s - self.first_s):.1f}/s"
        parts.append(f"the first after {self.first_s:.2f} s")
        if prompt is not None:
            of = f" of {context_tokens:,}" if context_tokens is not None else ""
            parts.append(f"context {prompt + answer:,}{of} tokens")
        return " · ".join(parts)


class ChatSession:
    """A conversation that goes on; every answer is to all that was said before."""

    def __init__(self, model: ChatModel, sampling: Sampling, system_prompt: str | None = None) -> None:
        self.model = model
        self.sampling = sampling
        self.system_prompt = system_prompt
        self.last = Timed()
        self._turns: list[dict[str, str]] = []

    @property
    def messages(self) -> list[dict[str, str]]:
        """All turns so far, the system prompt first if there is one."""
        return [*self._system(), *self._turns]

    @property
    def last_question(self) -> str | None:
        """What the user said last."""
        return next((turn["content"] for turn in reversed(self._turns) if turn["role"] == "user"), None)

    @property
    def last_answer(self) -> str | None:
        """What the model said last."""
        return next((turn["content"] for turn in reversed(self._turns) if turn["role"] == "assistant"), None)

    def ask(self, text: str) -> Pieces:
        """Yield the answer to a message in pieces, and keep both; an answer that is stopped is kept as far as it came.

        Where there is no answer at all (an error, or stopped before the first piece) the message is forgotten.
        """
        return self._answer(self._turns, text)

    def ask_again(self, text: str | None = None) -> Pieces:
        """Yield another answer to the last message, or to `text` in its place; the old ones stay where none comes."""
        question = self.last_question
        if question is None:
            raise ConfigError("nothing was asked yet: type a message first")
        return self._answer(self._turns[: self._place_of_last_question()], question if text is None else text)

    def undo(self) -> str:
        """Take the last message and its answer back; returns the message."""
        question = self.last_question
        if question is None:
            raise ConfigError("there is nothing to take back")
        self._turns = self._turns[: self._place_of_last_question()]
        return question

    def reset(self) -> None:
        """Forget what was said; the system prompt stays."""
        self._turns = []

    def set(self, name: str, text: str) -> None:
        """Change one sampling setting; raises ConfigError for an unknown name or a value that makes no sense."""
        settings: dict[str, Any] = asdict(self.sampling)
        if name not in settings:
            raise ConfigError(f"/set {name}: no such setting; there are {', '.join(settings)}")
        number = float if name in ("temperature", "top_p", "repetition_penalty") else int
        try:
            settings[name] = None if (name, text) == ("seed", "none") else number(text)
        except ValueError as exc:
            raise ConfigError(f"/set {name} {text}: give a {'whole ' if number is int else ''}number") from exc
        self.sampling = Sampling(**settings)

    def save(self, path: Path) -> None:
        """Append the conversation to a JSONL file, in the format `messages`."""
        if not self._turns:
            raise ConfigError("there is nothing to save yet")
        with path.open("ab") as file:
            file.write(orjson.dumps({"messages": self.messages}) + b"\n")

    def load(self, path: Path, *, number: int | None = None) -> None:
        """Go on with a conversation of a JSONL file, the last one or that of line `number`, counted from 1.

        Raises ConfigError where there is none; then this conversation stays.
        """
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        if not lines:
            raise ConfigError(f"{path} is empty; /save {path} writes a conversation")
        if number is not None and not 1 <= number <= len(lines):
            raise ConfigError(f"{path} has {len(lines)} conversations; there is no number {number}")
        place = number or len(lines)
        messages = read_messages(lines[place - 1], where=f"{path}:{place}")
        first = messages[0]
        self.system_prompt = first["content"] if first["role"] == "system" else None
        self._turns = messages[1:] if first["role"] == "system" else messages

    def _system(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []

    def _place_of_last_question(self) -> int:
        return max(place for place, turn in enumerate(self._turns) if turn["role"] == "user")

    def _answer(self, before: Sequence[dict[str, str]], text: str) -> Pieces:
        _check_text(text)
        question = {"role": "user", "content": text}
        pieces: list[str] = []
        timed = Timed()
        started = time.perf_counter()
        try:
            for piece in self.model.stream([*self._system(), *before, question], self.sampling, timed.tally):
                timed.last_s = time.perf_counter() - started
                timed.first_s = timed.last_s if timed.first_s is None else timed.first_s
                pieces.append(piece)
                yield piece
        finally:
            self.last = timed
            if answer := "".join(pieces):
                self._turns = [*before, question, {"role": "assistant", "content": answer}]


def _check_text(text: str) -> None:
    """Bytes of the command line or the terminal that are not UTF-8 come as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"the message is not UTF-8 text (character {exc.start})") from exc


def read_messages(line: bytes, *, where: str) -> list[dict[str, str]]:
    """Parse {"messages": [{"role", "content"}, ...]}; raises ConfigError that lists what is wrong with it."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"{where}: not JSON ({exc})") from exc
    messages = record.get("messages") if isinstance(record, dict) else None
    if not isinstance(messages, list) or not messages:
        raise ConfigError(f'{where}: no messages; write {{"messages": [{{"role": "user", "content": "..."}}]}}')
    problems = []
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            problems.append(f"{where}: message {place} has no content that is text")
        elif message.get("role") not in _ROLES:
            problems.append(f"{where}: message {place} has the role {message.get('role')!r}; use {', '.join(_ROLES)}")
        elif message["role"] == "system" and place > 1:
            problems.append(f"{where}: message {place} is a system prompt; only the first may be one")
    if problems:
        raise ConfigError(problems)
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def answer_of(model: ChatModel, messages: Sequence[dict[str, str]], sampling: Sampling) -> str:
    """The whole answer to a conversation; ModelError where the last word in it is not the user's."""
    if messages[-1]["role"] != "user":
        raise ModelError(f"the last message is the {messages[-1]['role']}'s; there is nothing to answer")
    return "".join(model.stream(messages, sampling, Tally()))

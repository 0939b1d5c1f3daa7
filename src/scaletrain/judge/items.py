"""What is judged: a prompt with the answers of two or more models to it, one line of JSON each.

    {"prompt": "Hello", "answers": {"base": "Hi.", "trained": "Hello! How are you?"}}

or, with earlier turns and a system prompt, "messages" in place of "prompt". Read from any URL.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.errors import ConfigError

ROLES = ("system", "user", "assistant")
_PROBLEMS_SHOWN = 20

Message = Mapping[str, str]


@dataclass(frozen=True)
class Pair:
    """Two models' answers to one prompt, as one judge sees them; `first` comes before `second` in the alphabet."""

    id: str
    item: "Item"
    first: str
    second: str


@dataclass(frozen=True)
class LivePair:
    """A pair that a judge asked for, with the models as they stood on the page."""

    pair: Pair
    judge: str
    left: str
    right: str


@dataclass(frozen=True)
class Item:
    """A prompt (its last message is the user's) and the answers to it by the models' names."""

    messages: tuple[Message, ...]
    answers: Mapping[str, str]

    @cached_property
    def id(self) -> str:
        """Hash of prompt and answers: votes belong to exactly these texts, whatever file they are in."""
        return _digest([list(map(dict, self.messages)), sorted(self.answers.items())])

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every two answers that differ; there is nothing to choose between equal ones."""
        return tuple(
            Pair(_digest([self.id, first, second]), self, first, second)
            for first, second in combinations(sorted(self.answers), 2)
            if self.answers[first].strip() != self.answers[second].strip()
        )

    def record(self) -> dict[str, object]:
        """The item as a line of the file."""
        return {"messages": [dict(message) for message in self.messages], "answers": dict(self.answers)}


@dataclass(frozen=True)
class Items:
    """All that one file asks to judge."""

    items: tuple[Item, ...]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models' names, sorted."""
        return tuple(sorted({model for item in self.items for model in item.answers}))

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """Every pair to judge by its id, in the order of the file."""
        return {pair.id: pair for item in self.items for pair in item.pairs}

    @property
    def equal_answers(self) -> int:
        """How many pairs are not judged because both models said the same."""
        every = sum(len(item.answers) * (len(item.answers) - 1) // 2 for item in self.items)
        return every - sum(len(item.pairs) for item in self.items)


def read_items(url: str) -> Items:
    """Read a file of items; the same prompt with the same answers counts once.

    Raises ConfigError that lists every line that is wrong, and NotFoundError where there is no such file.
    """
    found: dict[str, Item] = {}
    problems = []
    for number, line in enumerate(storage.read_bytes(url).splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = item_of(orjson.loads(line))
        except (orjson.JSONDecodeError, ValueError) as exc:
            problems.append(f"{url}:{number}: {exc}")
        else:
            found.setdefault(item.id, item)
    if problems:
        more = [f"and {len(problems) - _PROBLEMS_SHOWN} more lines"] if len(problems) > _PROBLEMS_SHOWN else []
        raise ConfigError(problems[:_PROBLEMS_SHOWN] + more)
    items = Items(tuple(found.values()))
    if not items.pairs:
        raise ConfigError(f"{url}: there is nothing to judge: it has no prompt with two answers that differ")
    return items


def write_items(url: str, items: Sequence[Item]) -> None:
    """Write items, one a line."""
    storage.write_bytes(url, b"".join(orjson.dumps(item.record()) + b"\n" for item in items))


def item_of(record: Any) -> Item:
    """The item of one line; ValueError says all that is wrong with it."""
    if not isinstance(record, dict):
        raise ValueError('is not an object; write {"prompt": "...", "answers": {"MODEL": "..."}}')
    problems = []
    messages: Any = record.get("messages")
    if ("prompt" in record) == ("messages" in record):
        problems.append('has to have either "prompt" or "messages"')
    elif "prompt" in record:
        messages = [{"role": "user", "content": record["prompt"]}]
    if messages is not None:
        problems += message_problems(messages)
    answers = record.get("answers")
    if not isinstance(answers, dict) or len(answers) < 2:
        problems.append('"answers" has to have the answers of two or more models, by name')
    elif not all(isinstance(text, str) and name.strip() for name, text in answers.items()):
        problems.append('"answers": every name and every answer has to be a text')
    if problems:
        raise ValueError("; ".join(problems))
    assert isinstance(answers, dict)
    turns = tuple({"role": message["role"], "content": message["content"]} for message in messages)
    return Item(turns, dict(answers))


def message_problems(messages: Any) -> Iterator[str]:
    """What is wrong with the messages of a prompt."""
    if not isinstance(messages, list) or not messages:
        yield '"messages" has to be a list of {"role": ..., "content": ...}'
        return
    for message in messages:
        good = isinstance(message, dict) and isinstance(message.get("content"), str) and message.get("role") in ROLES
        if not good:
            yield f'a message has to have a "role" of {", ".join(ROLES)} and a text as "content"'
            return
    if messages[-1]["role"] != "user":
        yield "the last message has to be the user's"


def _digest(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value)).hexdigest()[:32]

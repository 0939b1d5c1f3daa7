"""The documents of the step benchmark, prepared as a run's are: two distributions of length, both of real chats.

    chitchat    chitchat-dataset's conversations (MIT; `pip install chitchat-dataset`), as they are
    long        sittings: all that one person said and heard in conversations that follow one another with pauses of at
                most an hour, of the same dataset, where that is more than 4,000 characters (about 1,000 tokens)

A conversation is in the sitting of the one who spoke first, and in no other, so that nothing is there twice.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scaletrain.config_file import parse_config
from scaletrain.data.prepare import prepare
from stepping.flops import SHAPES
from stepping.work import model_settings

SOURCES = {
    "chitchat": "chitchat's conversations",
    "long": "sittings of chitchat's people, conversations with pauses of at most an hour",
}
_PACKAGE = "package:chitchat_dataset/dataset.json"
_LIMIT = {"cuda": 2_500, "cpu": 300}  # conversations
_SEQ_LEN = {("chitchat", "cuda"): 2_048, ("chitchat", "cpu"): 512, ("long", "cuda"): 8_192, ("long", "cpu"): 2_048}
_SITTINGS = {"cuda": 100_000, "cpu": 40}
_LONGEST_PAUSE_S = 3_600
_FEWEST_CHARACTERS = 4_000
_CONFIG = """
name: documents
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 8192, hidden_size: 64, num_layers: 1, num_heads: 4}}}}
data: {{corpora: [{{format: {format}, source: "{source}", limit: {limit}}}], seq_len: {seq_len}, validation: 0}}
train: {{steps: 1}}
"""


def make_dataset(lengths: str, device: str, folder: Path) -> str:
    """The documents of so many tokens, prepared below a folder where they are not there yet; returns their URL."""
    seq_len = _SEQ_LEN[lengths, device]
    root = folder / f"{lengths}-{seq_len}"
    for there in root.glob("data/*/index.json"):  # written last
        return str(there.parent)
    file_format, source, limit = "chitchat", _PACKAGE, _LIMIT[device]
    if lengths == "long":
        file_format, source, limit = "messages", str(root / "sittings.jsonl"), _SITTINGS[device]
        root.mkdir(parents=True, exist_ok=True)
        with Path(source).open("w", encoding="utf-8") as file:
            for messages in itertools.islice(sittings(_dialogues()), limit):
                file.write(json.dumps({"messages": messages}) + "\n")
    text = _CONFIG.format(root=root, format=file_format, source=source, limit=limit, seq_len=seq_len)
    return prepare(parse_config(text, source="benchmarks/step.py"), use_ray=False).dataset_url


def model_folder(size: str, seq_len: int, folder: Path) -> str:
    """A model in the bucket that has a configuration and no weights: those are random, and made by each run."""
    from scaletrain.model import store

    url = folder / "models" / f"{size}-{seq_len}"
    if not store.is_published(str(url)):
        made = folder / "models" / f"{size}-{seq_len}.making"
        model_settings(SHAPES[size], seq_len=seq_len).save_pretrained(made)
        store.publish(made, str(url), source="random weights")
    return str(url)


def sittings(dialogues: Sequence[Mapping[str, Any]]) -> Iterator[list[dict[str, str]]]:
    """The long chats in chitchat's dialogues, as messages: the user is whoever speaks first."""
    by_person: dict[str, list[list[Mapping[str, Any]]]] = {}
    for dialogue in dialogues:
        said = [message for turn in dialogue["messages"] for message in turn]
        if said:
            by_person.setdefault(said[0]["sender"], []).append(said)
    for person, conversations in by_person.items():
        conversations.sort(key=lambda said: _time(said[0]))
        for sitting in _cut_at_pauses(conversations):
            messages = _as_messages(person, sitting)
            if sum(len(message["content"]) for message in messages) > _FEWEST_CHARACTERS:
                yield messages


def _cut_at_pauses(conversations: Sequence[list[Mapping[str, Any]]]) -> Iterator[list[Mapping[str, Any]]]:
    sitting: list[Mapping[str, Any]] = []
    for said in conversations:
        if sitting and _time(said[0]) - _time(sitting[-1]) > _LONGEST_PAUSE_S:
            yield sitting
            sitting = []
        sitting = sitting + said
    yield sitting


def _as_messages(person: str, said: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What one side says in a row is one message."""
    messages = []
    for is_user, group in itertools.groupby(said, key=lambda message: message["sender"] == person):
        content = "\n".join(message["text"] for message in group)
        messages.append({"role": "user" if is_user else "assistant", "content": content})
    return messages


def _time(message: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(message["timestamp"]).replace(tzinfo=UTC).timestamp()


def _dialogues() -> list[Mapping[str, Any]]:
    from importlib.resources import files

    text = (files("chitchat_dataset") / "dataset.json").read_text(encoding="utf-8")
    return list(json.loads(text).values())

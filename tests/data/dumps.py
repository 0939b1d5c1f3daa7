"""Small dumps in each format's true shape."""

from collections.abc import Sequence
from pathlib import Path

import orjson


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    """Write rows as JSON lines; text is written as it is, for lines that are not JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row.encode() if isinstance(row, str) else orjson.dumps(row) for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def exchange(*contents: str) -> dict[str, object]:
    """A row of the messages format: user and assistant in turn."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]}


def write_chitchat(path: Path, dialogues: dict[str, list[list[tuple[str, str]]]]) -> Path:
    """Write dialogues of rows of (sender, text) as chitchat-dataset's dataset.json has them."""
    document = {
        key: {
            "messages": [
                [{"text": text, "timestamp": "2018-05-02T19:38:15Z", "sender": sender} for sender, text in row]
                for row in rows
            ],
            "prompt": "Talk about yourself.",
            "start": "2018-05-02T19:38:15Z",
        }
        for key, rows in dialogues.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document))
    return path

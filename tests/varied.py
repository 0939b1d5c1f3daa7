"""A small dataset with everything in it: languages, licences, ids, changed, dropped and unreadable rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from scaletrain.config import Config
from scaletrain.data.conversation import Conversation, Turn
from scaletrain.data.prepare import Prepared, prepare

EVIL = "<script>alert('who did this?')</script>"


def read_row(row: dict[str, Any]) -> Conversation:
    """A format of a user's own, which knows all that can be known."""
    turns = tuple(Turn("assistant" if place % 2 else "user", text) for place, text in enumerate(row["said"]))
    return Conversation(turns, id=row["id"], language=row["language"], licence="CC-BY-4.0")


def varied_config(folder: Path, **data: Any) -> Config:
    """Two corpora, `dump` and `plain`.

    `dump` has 40 conversations with id, language and licence: 3 are too short, 4 are changed, and one is longer than a
    row. `plain` has 20 rows of the messages format: one has a user only, and one is not JSON.
    """
    rows = [
        {
            "id": f"t{number}",
            "language": "zh" if number % 4 == 0 else "en",
            "said": [f"Is {number} even?", "cafÃ©" if number < 4 else "It depends. " * (number % 9), "Why?", EVIL],
        }
        for number in range(3, 39)
    ]
    rows += [{"id": f"short{number}", "language": "en", "said": [f"{number}", "a@b.org"]} for number in range(3)]
    rows += [{"id": "long", "language": "en", "said": ["Tell me", "one two " * 60, "More", "Yes"]}]
    dump = _write(folder / "dump.jsonl", rows)
    lines = [_messages(f"Hello {number}", "Hi! " * (number + 3)) for number in range(18)]
    plain = _write(folder / "plain.jsonl", [*lines, "oops", _messages("Anyone?")])
    return Config.model_validate(
        {
            "name": "test",
            "storage": {"root": str(folder / "bucket")},
            "model": {"init": "random", "size": {"vocab_size": 300, "hidden_size": 16, "num_heads": 2}},
            "data": {
                "corpora": [
                    {"format": "varied:read_row", "name": "dump", "source": str(dump)},
                    {"format": "messages", "name": "plain", "source": str(plain)},
                ],
                "seq_len": 128,
                "validation": 0.2,
                "min_chars": 15,
                **data,
            },
            "train": {"steps": 1},
        }
    )


def prepare_varied(folder: Path, **data: Any) -> Prepared:
    """Prepare it in this process."""
    return prepare(varied_config(folder, **data), use_ray=False)


def _messages(*contents: str) -> dict[str, Any]:
    """A row of the messages format: user and assistant in turn."""
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]}


def _write(path: Path, rows: Sequence[Any]) -> Path:
    """Write rows as JSON lines, text as it is; where they are there already, their file stays the same version."""
    data = b"".join((row.encode() if isinstance(row, str) else orjson.dumps(row)) + b"\n" for row in rows)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path

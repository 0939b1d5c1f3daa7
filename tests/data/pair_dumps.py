"""Pairs of answers, as rows of JSON lines."""

from typing import Any

GOOD, BAD = "Very well, thank you!", "Go away."


def pair(prompt: str, chosen: str = GOOD, rejected: str = BAD) -> dict[str, Any]:
    """A row as `scaletrain judge export` writes it."""
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "models": {"chosen": "a", "rejected": "b"},
        "votes": {"chosen": 2, "rejected": 0, "tie": 0, "both_bad": 0},
        "source": "judge",
    }

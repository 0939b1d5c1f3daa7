"""A judge's vote on a pair of answers."""

from dataclasses import asdict, dataclass
from typing import Literal

Choice = Literal["left", "tie", "right", "both_bad"]
CHOICES: tuple[Choice, ...] = ("left", "tie", "right", "both_bad")


@dataclass(frozen=True)
class Vote:
    """One judge's answer on one pair; `left` and `right` are the models as they were shown, `seconds` how long it took.

    `revision` counts how often the judge had voted on this pair before; `time` is that of the first time, ISO 8601 in
    UTC.
    """

    judge: str
    pair: str
    item: str
    left: str
    right: str
    choice: Choice
    reasons: tuple[str, ...] = ()
    note: str = ""
    seconds: float = 0.0
    time: str = ""
    revision: int = 0

    @property
    def winner(self) -> str | None:
        """The model that was preferred, or None."""
        return {"left": self.left, "right": self.right}.get(self.choice)

    def record(self) -> dict[str, object]:
        """The vote as a line of JSON."""
        return {**asdict(self), "winner": self.winner}

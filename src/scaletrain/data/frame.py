"""What a chat template puts around turns, and the text of a conversation in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaletrain.data.rendering import Messages, Rendered, TurnSpan, begins_with_system


@dataclass(frozen=True, slots=True)
class Around:
    """What stands before and after what a turn says; an assistant's header is the first `header` characters."""

    before: str
    header: int
    after: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What is put around the first exchanges; the turns that follow are like those of the last one.

    `opening` is what stands before a system turn's text, if there is one. `is_certain`: whatever is said, what the
    template writes is what is said in this frame.
    """

    opening: str
    turns: Sequence[Around]
    is_certain: bool = False

    def around(self, messages: Messages) -> Rendered:
        """Return what is said in this frame."""
        first = int(begins_with_system(messages))
        parts = [self.opening + messages[0]["content"]] if first else []
        spans = []
        start, stop = 0, len(parts[0]) if first else 0
        known = len(self.turns)
        for turn, message in enumerate(messages[first:]):
            around = self.turns[turn if turn < known else known - 2 + turn % 2]
            content = message["content"]
            parts += (around.before, content, around.after)
            spoken = stop + around.header
            stop += len(around.before) + len(content) + len(around.after)
            spans.append(TurnSpan(start, spoken, stop))
            start = stop
        return Rendered("".join(parts), spans)

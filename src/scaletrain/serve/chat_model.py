"""What a chat talks to: anything that streams answers and counts tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from scaletrain.model.prompt import Message
from scaletrain.model.sampling import Sampling


@dataclass
class Tally:
    """The tokens of one answer, counted while it is made; None where the model does not tell."""

    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class ChatModel(Protocol):
    """Something to talk to. `context_tokens`: the most tokens of a conversation; None where nobody knows."""

    name: str
    context_tokens: int | None

    def stream(self, messages: Sequence[Message], sampling: Sampling, tally: Tally) -> Iterator[str]:
        """Yield the answer in pieces and count its tokens; whoever stops reading stops the model.

        Raises ModelError where the conversation cannot be answered, ConfigError for settings that it does not have.
        """
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        """How many tokens a conversation takes with the header of the next answer; None where it cannot be told."""
        ...

    def others(self) -> list[str]:
        """The names of the models that could be had from the same place, this one among them."""
        ...

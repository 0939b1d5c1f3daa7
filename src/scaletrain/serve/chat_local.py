"""A model in this process, to chat with."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from scaletrain.model.generate import context_tokens, generate_tokens, text_of
from scaletrain.model.prompt import Message, encode_messages, encode_prompt
from scaletrain.model.sampling import Sampling
from scaletrain.serve.chat_model import Tally

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LocalModel:
    """A model in this process: one answer at a time."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, name: str) -> None:
        self.name = name
        self.context_tokens = context_tokens(model)
        self._model = model
        self._tokenizer = tokenizer

    def stream(self, messages: Sequence[Message], sampling: Sampling, tally: Tally) -> Iterator[str]:
        prompt = encode_prompt(
            self._tokenizer, messages, context=self.context_tokens, max_new_tokens=sampling.max_new_tokens
        )
        tally.prompt_tokens = len(prompt)
        tokens = generate_tokens(self._model, self._tokenizer, prompt, sampling)
        yield from text_of(self._tokenizer, _counted(tokens, tally))

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return len(encode_messages(self._tokenizer, messages))

    def others(self) -> list[str]:
        return [self.name]


def _counted(tokens: Iterable[int], tally: Tally) -> Iterator[int]:
    tally.answer_tokens = 0
    for token in tokens:
        tally.answer_tokens += 1
        yield token

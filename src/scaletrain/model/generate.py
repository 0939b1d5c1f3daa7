"""Answers to a conversation, word by word: sampling, stopping, and text from tokens.

One conversation at a time with a key-value cache; serving many at once is not this module's job. V: the vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from scaletrain.errors import DeviceError
from scaletrain.model.prompt import Message, encode_prompt, end_of_turn
from scaletrain.model.sampling import Sampling
from scaletrain.model.sources import errors_of_transformers, quiet_transformers
from scaletrain.model.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Sampling",
    "TextOfTokens",
    "context_tokens",
    "encode_prompt",
    "end_tokens",
    "generate_tokens",
    "load_for_chat",
    "reply",
    "stop_tokens",
    "stream_reply",
    "text_of",
]

_WINDOW_TOKENS = 32
_OVERLAP_TOKENS = 8
_UNFINISHED = "\ufffd"
_UNFINISHED_TOKENS = 8  # of more, not all can be one character's: that has four bytes at most
_CHARACTER_REST_TOKENS = 3


def load_for_chat(
    folder: Path, *, device: Literal["auto", "cuda", "cpu"] = "auto"
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a Hugging Face folder for generation, its weights in the type they are stored in."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("a GPU was asked for and torch sees none; check nvidia-smi, or use the CPU")
    chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    with errors_of_transformers(str(folder)), quiet_transformers():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.to(chosen).eval(), tokenizer


def reply(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], sampling: Sampling
) -> str:
    """Return the assistant's next turn in a conversation."""
    return "".join(stream_reply(model, tokenizer, messages, sampling))


def stream_reply(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], sampling: Sampling
) -> Iterator[str]:
    """Yield the assistant's next turn in pieces, as they are made; whoever stops reading stops the model.

    Where a conversation is longer than the model's context, its oldest exchanges are left out, with a warning; the
    system prompt stays. Raises ModelError where the last message alone is too long.
    """
    prompt = encode_prompt(tokenizer, messages, context=context_tokens(model), max_new_tokens=sampling.max_new_tokens)
    yield from text_of(tokenizer, generate_tokens(model, tokenizer, prompt, sampling))


def generate_tokens(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompt: list[int], sampling: Sampling
) -> Iterator[int]:
    """Yield the tokens of the answer to a prompt, up to the end of the turn, of the context or `max_new_tokens`."""
    context = context_tokens(model)
    room = sampling.max_new_tokens if context is None else min(sampling.max_new_tokens, context - len(prompt))
    return _generate(model, prompt, sampling, room=room, stops=stop_tokens(model, tokenizer))


def context_tokens(model: "PreTrainedModel") -> int | None:
    """How many tokens a model can look back on; None where its positions have no end."""
    length: int | None = getattr(model.config, "max_position_embeddings", None)
    return length


def stop_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The tokens that end an answer: of the generation settings, the tokenizer, the chat template, and ChatML."""
    return end_tokens(model.generation_config, tokenizer)


def end_tokens(settings: "GenerationConfig | None", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The same, where there are a folder's generation settings and no model."""
    configured = settings.eos_token_id if settings is not None else None
    stops = set(configured) if isinstance(configured, list) else {configured}
    stops |= {tokenizer.eos_token_id, tokenizer.get_vocab().get(END_OF_TURN), end_of_turn(tokenizer)}
    return frozenset(token for token in stops if token is not None)


def text_of(tokenizer: "PreTrainedTokenizerBase", tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of tokens as soon as it is certain; no character is ever split."""
    text = TextOfTokens(tokenizer)
    for token in tokens:
        if new := text.push(token):
            yield new
    if rest := text.rest():
        yield rest


class TextOfTokens:
    """The text of tokens that come one by one.

    They are decoded in a sliding window, since the text of a token may depend on its neighbours (spaces, bytes).
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._shown = 0
        self._unfinished = 0

    def push(self, token: int) -> str:
        """Take a token; returns the text that has become certain, in whole characters."""
        self._window.append(token)
        text = _decode(self._tokenizer, self._window)
        if text.endswith(_UNFINISHED):
            self._unfinished += 1
            return self._damaged(text) if self._unfinished > _UNFINISHED_TOKENS else ""
        self._unfinished = 0
        new = text[self._shown :]
        self._shown = len(text)
        if len(self._window) > _WINDOW_TOKENS:
            self._window = self._window[-_OVERLAP_TOKENS:]
            self._shown = len(_decode(self._tokenizer, self._window))
        return new

    def _damaged(self, text: str) -> str:
        """What is certain of bytes that are no text, so that the window does not grow with them."""
        certain = _decode(self._tokenizer, self._window[:-_CHARACTER_REST_TOKENS])
        if not text.startswith(certain):  # it ends inside a character
            return ""
        new = certain[self._shown :]
        self._window = self._window[-_OVERLAP_TOKENS - _CHARACTER_REST_TOKENS :]
        self._shown = len(_decode(self._tokenizer, self._window[:-_CHARACTER_REST_TOKENS]))
        return new

    def rest(self) -> str:
        """The text of tokens that end in the middle of a character."""
        return _decode(self._tokenizer, self._window)[self._shown :]


@torch.inference_mode()
def _generate(model: Any, prompt: list[int], sampling: Sampling, *, room: int, stops: frozenset[int]) -> Iterator[int]:
    """Yield new tokens up to a stop token, which is not yielded."""
    generator = torch.Generator(model.device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    process = _processors(sampling)
    seen = torch.tensor([prompt], device=model.device)
    inputs, cache = seen, None
    for _ in range(room):
        output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        scores_1V = process(seen, output.logits[:, -1].float())
        if sampling.temperature == 0:
            inputs = scores_1V.argmax(-1, keepdim=True)
        else:
            inputs = torch.multinomial(scores_1V.softmax(-1), 1, generator=generator)
        token = int(inputs)
        if token in stops:
            return
        seen = torch.cat([seen, inputs], dim=1)
        yield token


def _processors(sampling: Sampling) -> Any:
    """transformers' own steps, in its order, so that answers are those of its generate()."""
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature > 0:
        steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k > 0:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(TopPLogitsWarper(sampling.top_p))
    return steps


def _decode(tokenizer: "PreTrainedTokenizerBase", tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

"""Answers to a conversation, word by word: the prompt that fits the context, sampling, stopping, and text from tokens.

One conversation at a time with a key-value cache; serving many at once is not this module's job. V: the vocabulary.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from scaletrain.errors import ConfigError, DeviceError, ModelError
from scaletrain.log import get_logger
from scaletrain.model.sources import errors_of_transformers, quiet_transformers
from scaletrain.model.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Message = Mapping[str, str]

_WINDOW_TOKENS = 32
_OVERLAP_TOKENS = 8
_UNFINISHED = "\ufffd"

log = get_logger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; raises ConfigError for values that make no sense.

    temperature 0: always the most likely token. top_p: the smallest set of tokens that likely (Holtzman et al. 2020,
    arXiv:1904.09751); top_k: the k most likely, 0 for all; repetition_penalty: above 1, tokens already there are less
    likely (Keskar et al. 2019, arXiv:1909.05858); seed: the same answer each time, None for a new one.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "top_k": (self.top_k >= 0, "0 (all tokens) or more"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0; 1 is none"),
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
        }
        problems = [f"{name}={getattr(self, name)}: use {rule}" for name, (good, rule) in rules.items() if not good]
        if problems:
            raise ConfigError(problems)


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
    context = context_tokens(model)
    prompt = encode_prompt(tokenizer, messages, context=context, max_new_tokens=sampling.max_new_tokens)
    room = sampling.max_new_tokens if context is None else min(sampling.max_new_tokens, context - len(prompt))
    stops = stop_tokens(model, tokenizer)
    yield from text_of(tokenizer, _generate(model, prompt, sampling, room=room, stops=stops))


def context_tokens(model: "PreTrainedModel") -> int | None:
    """How many tokens a model can look back on; None where its positions have no end."""
    length: int | None = getattr(model.config, "max_position_embeddings", None)
    return length


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, context: int | None, max_new_tokens: int
) -> list[int]:
    """Tokenise a conversation and the header of the answer, without the oldest exchanges where they do not fit.

    Half of the context is kept free for the answer, or less where `max_new_tokens` is less.
    """
    prompt = _render(tokenizer, messages)
    if context is None:
        return prompt
    limit = context - min(max_new_tokens, context // 2)
    kept = list(messages)
    while len(prompt) > limit and (shorter := _without_oldest_exchange(kept)) is not None:
        kept = shorter
        prompt = _render(tokenizer, kept)
    if len(prompt) >= context:
        raise ModelError(
            f"the message takes {len(prompt)} tokens with its system prompt, and the model's context has {context}; "
            "shorten it"
        )
    if len(kept) < len(messages):
        log.warning(
            "the conversation is longer than the model's context of %d tokens: its first %d messages are left out",
            context,
            len(messages) - len(kept),
        )
    return prompt


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

    def push(self, token: int) -> str:
        """Take a token; returns the text that has become certain, in whole characters."""
        self._window.append(token)
        text = _decode(self._tokenizer, self._window)
        if text.endswith(_UNFINISHED):
            return ""
        new = text[self._shown :]
        self._shown = len(text)
        if len(self._window) > _WINDOW_TOKENS:
            self._window = self._window[-_OVERLAP_TOKENS:]
            self._shown = len(_decode(self._tokenizer, self._window))
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


def stop_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The tokens that end an answer: those of the generation settings, of the tokenizer, and ChatML's end of a turn."""
    return end_tokens(model.generation_config, tokenizer)


def end_tokens(settings: "GenerationConfig | None", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The same, where there are a folder's generation settings and no model."""
    configured = settings.eos_token_id if settings is not None else None
    stops = set(configured) if isinstance(configured, list) else {configured}
    stops |= {tokenizer.eos_token_id, tokenizer.get_vocab().get(END_OF_TURN)}
    return frozenset(token for token in stops if token is not None)


def _render(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError) as exc:
        raise ModelError(f"the model's chat template does not take this conversation: {exc}") from exc
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _without_oldest_exchange(messages: list[Message]) -> list[Message] | None:
    """Leave out the first user message and what follows up to the next; None where it is the only one."""
    first = 1 if messages and messages[0]["role"] == "system" else 0
    users = [index for index, message in enumerate(messages) if index > first and message["role"] == "user"]
    return messages[:first] + messages[users[0] :] if users else None


def _decode(tokenizer: "PreTrainedTokenizerBase", tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

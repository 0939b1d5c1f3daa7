"""The step on perplexity: how surprising a small causal language model finds a conversation.

It is exp of the mean loss of a token, given those before it, over what is said, a line a turn, without system turns and
chat template (as Wenzek et al. 2020, arXiv:1911.00359, judge web pages by a model of Wikipedia). The first token has
nothing before it and is not counted, unless the tokenizer has a token that begins a text.

A conversation is read by itself, in fp32 on one thread of the CPU: in a batch, how others are padded would change the
last bits of its score, and so what is dropped would depend on its neighbours and on the number of workers. On CPUs of
different kinds scores may differ in their last digit, which is the second after the point.
"""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scaletrain.data.cleaning.contents import spoken
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PERPLEXITY = "perplexity"
_SETTING = "data.cleaning: check_perplexity"
_CHARS_A_TOKEN = 32  # more than tokens have; what is behind would not be read
_HIGHEST_LOSS = 50.0  # nats; exp of more is of no use to anybody


@dataclass(frozen=True)
class Judge:
    """A model and its tokenizer; `name` has a hash of all their bytes."""

    name: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def check_perplexity(
    conversation: Conversation, *, model: str, lowest: float | None, highest: float | None, max_tokens: int
) -> Conversation:
    """Note a conversation's perplexity, and drop it where that is out of bounds; what has one token is not judged."""
    score = perplexity("\n".join(spoken(conversation)), load_judge(model), max_tokens=max_tokens)
    if score is None:
        return conversation
    conversation = conversation.annotated({PERPLEXITY: score})
    drop = None
    if highest is not None and score > highest:
        drop = Drop("unlikely", f"perplexity {score:g}, at most {highest:g}")
    if lowest is not None and score < lowest:
        drop = Drop("too_likely", f"perplexity {score:g}, at least {lowest:g}")
    if drop is not None:
        drop.conversation = conversation
        raise drop
    return conversation


def perplexity(text: str, judge: Judge, *, max_tokens: int) -> float | None:
    """Return the perplexity of a text's first tokens, with two digits after the point; None where there is only one."""
    import torch

    ids = judge.tokenizer(
        text[: _CHARS_A_TOKEN * max_tokens].encode("utf-8", "ignore").decode(), add_special_tokens=False
    )["input_ids"]
    beginning = [] if judge.tokenizer.bos_token_id is None else [judge.tokenizer.bos_token_id]
    ids_1T = torch.tensor([[*beginning, *ids][:max_tokens]])
    if ids_1T.shape[1] < 2:
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            logits_TV = judge.model(input_ids=ids_1T, use_cache=False).logits[0]
            loss = torch.nn.functional.cross_entropy(logits_TV[:-1].float(), ids_1T[0, 1:])
    finally:
        torch.set_num_threads(threads)
    return round(math.exp(min(float(loss), _HIGHEST_LOSS)), 2)


@functools.lru_cache(maxsize=2)
def load_judge(source: str) -> Judge:
    """Load a model from wherever `model.source` may name one, through this user's cache; it stays in this process.

    Raises ConfigError where there is none, or it is no causal language model; StorageError.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from scaletrain.config_model import ModelSection
    from scaletrain.model import build, sources, store

    try:
        url = build.materialise(ModelSection(source=source), root=str(store.cache_folder()), seed=0)  # type: ignore[call-arg]
        tokenizer = build.load_tokenizer(url)
        folder = build.fetch(url)
        with sources.errors_of_transformers(source), sources.quiet_transformers():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    except ModelError as exc:
        raise ConfigError(f"{_SETTING}: model: {exc}") from exc
    return Judge(url.rpartition("/")[2], model.eval(), tokenizer)


def check_judge(source: str, *, max_tokens: int) -> None:
    """Load the model, and raise ConfigError where it cannot read as many tokens."""
    positions = getattr(load_judge(source).model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and max_tokens > positions:
        raise ConfigError(
            f"{_SETTING}: max_tokens={max_tokens} is more than the {positions} positions of {source}; "
            f"use {positions} or less"
        )

"""Answers to fixed prompts, always the most likely token, so that two models can be read side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from scaletrain import storage
from scaletrain.errors import ConfigError
from scaletrain.model.generate import context_tokens, encode_prompt, stop_tokens
from scaletrain.model.sources import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sample:
    """One prompt and the model's answer to it, of so many tokens; `ended`: whether the model ended it itself."""

    prompt: str
    reply: str
    tokens: int
    ended: bool


def read_prompts(prompts: tuple[str, ...] | str) -> tuple[str, ...]:
    """Prompts as configured: a list, or the URL of a file; raises ConfigError with every line that is none."""
    if not isinstance(prompts, str):
        return prompts
    lines = [line.strip() for line in storage.read_lines(prompts)]
    if not prompts.endswith(".jsonl"):
        found = tuple(line for line in lines if line)
    else:
        rows = [(number, _row(line)) for number, line in enumerate(lines, start=1) if line]
        bad = [f'{prompts}:{number}: has to be {{"prompt": "..."}}' for number, row in rows if row is None]
        if bad:
            raise ConfigError(bad)
        found = tuple(row for _, row in rows if row is not None)
    if not found:
        raise ConfigError(f"evaluate.prompts: {prompts} has no prompts; write one a line")
    return found


def greedy_samples(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    system_prompt: str | None,
    on_sample: Callable[[], None],
) -> tuple[Sample, ...]:
    """Ask each prompt in a conversation of its own, after the system prompt that training used, if any."""
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    samples = []
    for prompt in prompts:
        messages = [*system, {"role": "user", "content": prompt}]
        tokens, ended = _answer(model, tokenizer, messages, max_new_tokens)
        text = str(tokenizer.decode(tokens, skip_special_tokens=True))
        samples.append(Sample(prompt, text.strip(), len(tokens), ended))
        on_sample()
    return tuple(samples)


def _answer(
    model: Any, tokenizer: "PreTrainedTokenizerBase", messages: Sequence[dict[str, str]], max_new_tokens: int
) -> tuple[list[int], bool]:
    """The answer's tokens without the one that ends it, and whether there was one."""
    import torch
    from transformers import GenerationConfig

    context = context_tokens(model)
    prompt = encode_prompt(tokenizer, messages, context=context, max_new_tokens=max_new_tokens)
    stops = sorted(stop_tokens(model, tokenizer))
    make: Any = GenerationConfig
    settings = make(  # every setting that the model's own file might change
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        use_cache=True,
        max_new_tokens=max_new_tokens if context is None else min(max_new_tokens, context - len(prompt)),
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0],
    )
    input_ids = torch.tensor([prompt], device=model.device)
    with torch.inference_mode(), quiet_transformers():
        output = model.generate(input_ids, attention_mask=torch.ones_like(input_ids), generation_config=settings)
    tokens: list[int] = output[0, len(prompt) :].tolist()
    ended = bool(tokens) and tokens[-1] in stops
    return tokens[: len(tokens) - ended], ended


def _row(line: str) -> str | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    prompt = row.get("prompt") if isinstance(row, dict) else None
    return prompt if isinstance(prompt, str) and prompt.strip() else None

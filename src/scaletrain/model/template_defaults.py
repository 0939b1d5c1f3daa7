"""What a chat template does where its user says nothing: as the run was trained, and whoever loads the model.

The template goes with the tokenizer to transformers, vLLM and llama.cpp. So a model that was trained not to think, or
under a system prompt, is asked in the same way there as here, without a setting that could be forgotten.
"""

import re

import orjson

_ASKS_WHETHER_TO_THINK = re.compile(r"(?<![\w.'\"])enable_thinking\b")


def with_thinking(chat_template: str, *, thinking: bool) -> str:
    """Let a template that knows thinking (`enable_thinking`, as Qwen3's) do it, or not, unless its user says."""
    if not _ASKS_WHETHER_TO_THINK.search(chat_template):
        return chat_template
    default = "true" if thinking else "false"
    return (
        f"{{% if enable_thinking is not defined %}}{{% set enable_thinking = {default} %}}{{% endif %}}{chat_template}"
    )


def with_system_prompt(chat_template: str, system_prompt: str) -> str:
    """Let a template put a system prompt before conversations that have none, as `data.system_prompt` did."""
    message = f"{{'role': 'system', 'content': {_text(system_prompt)}}}"
    return (
        f"{{% if not messages or messages[0]['role'] != 'system' %}}{{% set messages = [{message}] + messages %}}"
        f"{{% endif %}}{chat_template}"
    )


def _text(content: str) -> str:
    """A text as Jinja reads it; JSON's escapes are among its own."""
    return orjson.dumps(content).decode()

"""A conversation becomes the tokens that a model answers to; one truth for the terminal chat and the HTTP API.

The text of the chat template is tokenised as a whole, as in training. Training leaves out conversations in which
somebody writes a special token; here, where anybody may write anything, it becomes plain text: nobody can end his turn
with it and go on as somebody else. Where a template marks turns by ordinary words alone (Llama 2's [INST]) there is no
token to tell the two apart, and no such protection.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaletrain.errors import ModelError
from scaletrain.log import get_logger
from scaletrain.template_dates import with_fixed_date

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]

_ROLE = re.compile(r"[a-z_]+")
_STAND_INS = range(0xF0000, 0xFFFFE)  # characters for private use
_TOKENIZERS_KEPT = 16  # a server may have several models

log = get_logger(__name__)


def encode_messages(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Tokenise a conversation with the model's chat template, and the header of the answer to it.

    A special token, or another that marks turns, never comes of what a message says. Nothing is left out, however long
    it is. May be called by several threads at once. Raises ModelError where there is no chat template, it does not take
    the conversation, or a role is no plain word.
    """
    marks = _marks(tokenizer, str(tokenizer.chat_template))
    said = "".join(message["content"] for message in messages)
    spelled = set(marks.pattern.findall(said)) if marks.pattern is not None else set()
    free = (chr(code) for code in _STAND_INS if chr(code) not in said)
    stand_in = dict(zip(sorted(spelled), free, strict=False))
    text = _render(tokenizer, [_with_stand_ins(message, marks, stand_in) for message in messages])
    if not stand_in:
        return _encode(tokenizer, text)
    mark_of = {character: mark for mark, character in stand_in.items()}
    ids: list[int] = []
    for part in re.split(f"([{''.join(mark_of)}])", text):
        ids += _encode_as_text(tokenizer, mark_of[part], marks) if part in mark_of else _encode(tokenizer, part)
    return ids


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, context: int | None, max_new_tokens: int
) -> list[int]:
    """Tokenise a conversation and the header of the answer, without the oldest exchanges where they do not fit.

    Half of the context is kept free for the answer, or less where `max_new_tokens` is less. Raises ModelError as
    `encode_messages` does, and where the last message alone is too long.
    """
    prompt = encode_messages(tokenizer, messages)
    if context is None:
        return prompt
    limit = context - min(max_new_tokens, context // 2)
    kept = list(messages)
    while len(prompt) > limit and (shorter := without_oldest_exchange(kept)) is not None:
        kept = shorter
        prompt = encode_messages(tokenizer, kept)
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


def without_oldest_exchange(messages: Sequence[Message]) -> list[Message] | None:
    """Leave out the first user message and what follows up to the next; None where it is the only one."""
    first = 1 if messages and messages[0]["role"] == "system" else 0
    users = [index for index, message in enumerate(messages) if index > first and message["role"] == "user"]
    return [*messages[:first], *messages[users[0] :]] if users else None


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token with which the chat template ends an answer; None where it shows none, or takes no such conversation.

    A model tuned with Llama 3's template ends its answers with <|eot_id|>, whatever its tokenizer calls its end; one
    tuned with GLM's, which writes nothing there, with the token that begins the next question.
    """
    return _end_of_turn(tokenizer, str(tokenizer.chat_template or ""))


@functools.lru_cache(maxsize=_TOKENIZERS_KEPT)
def _end_of_turn(tokenizer: "PreTrainedTokenizerBase", chat_template: str) -> int | None:
    said, question = chr(_STAND_INS[0]), {"role": "user", "content": "0"}
    messages = [question, {"role": "assistant", "content": said}]
    after = ""
    try:
        for conversation in (messages, [*messages, question]) if chat_template else ():
            after = after or _render(tokenizer, conversation, add_generation_prompt=False).rpartition(said)[2]
    except ModelError:
        return None
    added = tokenizer.added_tokens_decoder
    marks = (token for token in _encode(tokenizer, after) if token in added and added[token].content.strip())
    return next(marks, None)


def _render(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, add_generation_prompt: bool = True
) -> str:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ModelError("the model's tokenizer has no chat template, so it cannot be talked to; give it one")
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **with_fixed_date(tokenizer.chat_template),
            )
        )
    except (TemplateError, ValueError) as exc:
        raise ModelError(f"the model's chat template does not take this conversation: {exc}") from exc


# --- What marks turns, and how to write it as text ------------------------------------------------------------------


@dataclass(frozen=True)
class _Marks:
    """The tokens that no message may speak: a pattern of their texts, the longest first, and their ids."""

    pattern: re.Pattern[str] | None
    ids: frozenset[int]


@functools.lru_cache(maxsize=_TOKENIZERS_KEPT)
def _marks(tokenizer: "PreTrainedTokenizerBase", chat_template: str) -> _Marks:
    """Special tokens, and those that the template puts around turns though they are not marked as special."""
    around = _around_turns(tokenizer)
    texts = {str(token) for token in (tokenizer.eos_token, tokenizer.bos_token) if token}
    for token in tokenizer.added_tokens_decoder.values():
        if token.special or (token.content.strip() and token.content in around):
            texts.add(token.content)
    if not texts:
        return _Marks(None, frozenset())
    vocabulary = tokenizer.get_vocab()
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    ids = frozenset(vocabulary[text] for text in texts if text in vocabulary)
    return _Marks(re.compile("|".join(map(re.escape, longest_first))), ids)


def _around_turns(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the template puts around turns that say next to nothing; "" where it does not take such a conversation."""
    try:
        return _render(tokenizer, [{"role": role, "content": "0"} for role in ("user", "assistant", "user")])
    except ModelError:
        return ""


def _with_stand_ins(message: Message, marks: _Marks, stand_in: Mapping[str, str]) -> Message:
    """Return a message in which a character stands for each text that the tokenizer would read as a mark."""
    role, content = message["role"], message["content"]
    if not _ROLE.fullmatch(role):
        raise ModelError(f"a message has the role {role!r}; use system, user or assistant")
    if not stand_in or marks.pattern is None:
        return {"role": role, "content": content}
    return {"role": role, "content": marks.pattern.sub(lambda found: stand_in[found[0]], content)}


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    backend = _backend(tokenizer, literal=False)
    if backend is None:
        slow: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return slow
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def _encode_as_text(tokenizer: "PreTrainedTokenizerBase", text: str, marks: _Marks) -> list[int]:
    """Tokenise what looks like a mark as the characters it is made of."""
    backend = _backend(tokenizer, literal=True)
    if backend is not None:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        if marks.ids.isdisjoint(ids):
            return ids
    ids = [token for character in text for token in _encode(tokenizer, character)]
    if not marks.ids.isdisjoint(ids):
        raise ModelError(f"a message contains {text}, which this tokenizer cannot write as plain text; leave it out")
    return ids


@functools.lru_cache(maxsize=2 * _TOKENIZERS_KEPT)
def _backend(tokenizer: "PreTrainedTokenizerBase", *, literal: bool) -> "Tokenizer | None":
    """Copy a fast tokenizer, so that threads share no settings; `literal`: special tokens in a text are text."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = literal
    return copy

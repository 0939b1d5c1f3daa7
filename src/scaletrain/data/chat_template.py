"""A conversation becomes token ids, with the exact mask of what the assistant says.

Supervised: the text of an assistant's turn and the marker that ends it. Not supervised: headers (the generation
prompt), users, system turns, a system prompt that the template puts in by itself, and the newline that a template
writes after the end marker.

How: the template renders the conversation, and its beginnings with and without the generation prompt, as text; that
gives each turn's place in the text. The whole text is tokenised once, as at inference, and the tokens' character
offsets carry the places over. A token that straddles the edge of a supervised span is not supervised.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from scaletrain.data.conversation import Conversation, Drop
from scaletrain.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[dict[str, str]]
_REMEDY = "give another with data.chat_template"


@dataclass(frozen=True)
class Encoded:
    """A tokenised conversation.

    input_ids: int32 [N]. supervised: bool [N]. turn_starts: int32 [turns], the token at which each turn begins; a
    system turn belongs to the user turn after it, so that turns alternate: even ones are the user's.
    """

    input_ids: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.bool_]
    turn_starts: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _TurnSpan:
    """Where a turn stands in the rendered text; `spoken` is where an assistant's own text begins, after the header."""

    start: int
    spoken: int
    stop: int


def encode(conversation: Conversation, tokenizer: "PreTrainedTokenizerBase") -> Encoded:
    """Tokenise a conversation that meets the rules of `check_validity`.

    Raises Drop where this conversation cannot be encoded exactly, and DataError where no conversation can.
    """
    plain = _plain_tokenizer(tokenizer)
    markers = _special_tokens(tokenizer)
    if markers and any(markers.search(turn.content) for turn in conversation.turns):
        raise Drop("special_token_in_text")  # it would be read as the template's own
    messages = conversation.messages()
    text, spans = _render(messages, tokenizer)
    turns = messages[-len(spans) :]

    encoding = plain.encode(text, add_special_tokens=False)
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    starts, stops = offsets[:, 0], offsets[:, 1]
    supervised = np.zeros(len(starts), dtype=np.bool_)
    for span, turn in zip(spans, turns, strict=True):
        if turn["role"] == "assistant":
            end = span.spoken + _end_of_turn(text[span.spoken : span.stop], turn["content"])
            inside = slice(*np.searchsorted(starts, (span.spoken, end)))
            supervised[inside] = stops[inside] <= span.stop
    if not supervised.any():
        raise Drop("no_supervised_token")
    turn_starts = np.searchsorted(starts, [span.start for span in spans])
    return Encoded(np.array(encoding.ids, dtype=np.int32), supervised, turn_starts.astype(np.int32))


# --- Text ---------------------------------------------------------------------------------------------------------


def _render(messages: Messages, tokenizer: "PreTrainedTokenizerBase") -> tuple[str, list[_TurnSpan]]:
    """Render a conversation, and find its turns (a system turn counted with the user's after it).

    Rendering every beginning of a conversation takes quadratic time. Nearly every template renders a turn without
    regard to how many came before, so each turn is first rendered after the opening exchange alone; only where these
    do not add up to the whole text are the true beginnings rendered.
    """
    text = _apply(tokenizer, [messages], add_generation_prompt=False)[0]
    first = 2 if messages[0]["role"] == "system" else 1
    turns = [messages[:first], *([message] for message in messages[first:])]
    for opening in sorted({2, len(turns)}):
        spans = _find_turns(text, turns, tokenizer, opening=opening)
        if spans:
            return text, spans
    raise DataError(
        "the chat template renders the beginning of a conversation differently once more turns follow, so that the "
        f"assistant's turns cannot be told from the others exactly; {_REMEDY}"
    )


def _find_turns(
    text: str, turns: Sequence[Messages], tokenizer: "PreTrainedTokenizerBase", *, opening: int
) -> list[_TurnSpan]:
    """Find each turn in the text, rendered after the turns before it, beyond `opening` only an answer's question.

    Returns [] where the turns do not add up to the text.
    """
    beginnings = [_beginning(turns, position, opening) for position in range(len(turns))]
    whole = [[*beginning, *turn] for beginning, turn in zip(beginnings, turns, strict=True)]
    rendered = _apply(tokenizer, whole, add_generation_prompt=False)
    prompted = _apply(tokenizer, beginnings[1::2], add_generation_prompt=True)

    spans = [_TurnSpan(0, 0, len(rendered[0]))]
    for position in range(1, len(turns)):
        is_answer = position % 2 == 1
        before = rendered[position - 1 if is_answer or position <= opening else opening - 1]
        prompt = prompted[position // 2] if is_answer else before
        after = rendered[position]
        start = spans[-1].stop
        stop = start + len(after) - len(before)
        if not (after.startswith(prompt) and prompt.startswith(before) and text[start:stop] == after[len(before) :]):
            return []
        spans.append(_TurnSpan(start, start + len(prompt) - len(before), stop))
    if spans[-1].stop != len(text) or not text.startswith(rendered[0]):
        return []
    _check_generation_prompt(text, spans, [turn[-1] for turn in turns])
    return spans


def _beginning(turns: Sequence[Messages], position: int, opening: int) -> list[dict[str, str]]:
    """The messages to render before the turn at `position`."""
    question = [turns[position - 1]] if position > opening and position % 2 else []
    return [message for turn in (*turns[: min(position, opening)], *question) for message in turn]


def _check_generation_prompt(text: str, spans: Sequence[_TurnSpan], turns: Messages) -> None:
    """Refuse a template without a generation prompt, unless what the assistant says follows at once anyway."""
    for span, turn in zip(spans, turns, strict=True):
        if turn["role"] == "assistant" and span.spoken == span.start:
            said = text[span.spoken : span.stop].lstrip()
            if not said.startswith(turn["content"].strip()):
                raise DataError(
                    "the chat template ignores add_generation_prompt, so that the assistant's header cannot be told "
                    f"from what it says; {_REMEDY}"
                )


def _end_of_turn(segment: str, content: str) -> int:
    """Length of an assistant's segment up to its end marker; white space is the marker only where nothing else is."""
    visible = segment.rstrip()
    return len(segment) if visible.endswith(content.strip()) else len(visible)


def _apply(
    tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[Messages], *, add_generation_prompt: bool
) -> list[str]:
    """Render conversations with the tokenizer's template; Drop where the template refuses one."""
    from jinja2 import TemplateError, TemplateSyntaxError

    if not conversations:
        return []
    if not tokenizer.chat_template:
        raise DataError("the tokenizer has no chat template; give one with data.chat_template")
    try:
        texts = tokenizer.apply_chat_template(
            [list(each) for each in conversations],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            date_string="26 Jul 2024",  # Llama 3 would write today's date, and every day's tokens would be others
        )
    except TemplateSyntaxError as exc:
        raise DataError(f"the chat template is not valid Jinja: line {exc.lineno}: {exc.message}; {_REMEDY}") from exc
    except TemplateError as exc:
        raise Drop("refused_by_chat_template", str(exc)) from exc
    return cast("list[str]", texts)


# --- Tokenizer ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _plain_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """Copy the tokenizer without its post-processor, which may trim offsets, and which adds only what is not wanted."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(_backend(tokenizer).to_str())
    plain.post_processor = None
    plain.no_truncation()
    plain.no_padding()
    return plain


@functools.lru_cache(maxsize=4)
def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str] | None:
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= {str(token) for token in (tokenizer.eos_token, tokenizer.bos_token) if token}
    return re.compile("|".join(map(re.escape, sorted(special)))) if special else None


def _backend(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise DataError(
            f"{type(tokenizer).__name__} has no character offsets: use a model with a fast tokenizer (tokenizer.json)"
        )
    return backend  # type: ignore[no-any-return]

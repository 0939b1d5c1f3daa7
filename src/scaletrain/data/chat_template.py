"""A conversation becomes token ids, with the exact mask of what the assistant says.

Supervised: the text of an assistant's turn and the marker that ends it. Not supervised: headers (the generation
prompt), users, system turns, a system prompt that the template puts in by itself, and the newline that a template
writes after the end marker.

How: turn_spans.py renders the conversation with the template and says where in the text each turn stands. The whole
text is tokenised once, as at inference, and the tokens' places (text_tokens.py) carry the turns' over. A token that
straddles the edge of a supervised span is not supervised.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.rendering import Rendered
from scaletrain.data.text_tokens import Tokens, byte_positions, tokenise_texts
from scaletrain.data.turn_spans import render_all
from scaletrain.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """A tokenised conversation.

    input_ids: int32 [N]. supervised: bool [N]. turn_starts: int32 [turns], the token at which each turn begins; a
    system turn belongs to the user turn after it, so that turns alternate: even ones are the user's.
    """

    input_ids: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.bool_]
    turn_starts: npt.NDArray[np.int32]


def encode(conversation: Conversation, tokenizer: "PreTrainedTokenizerBase") -> Encoded:
    """Tokenise a conversation that meets the rules of `check_validity`.

    Raises Drop where this conversation cannot be encoded exactly, and DataError where no conversation can.
    """
    [encoded] = encode_all([conversation], tokenizer)
    if isinstance(encoded, Drop):
        raise encoded
    return encoded


def encode_all(conversations: Sequence[Conversation], tokenizer: "PreTrainedTokenizerBase") -> list[Encoded | Drop]:
    """Tokenise conversations that meet the rules of `check_validity`.

    For one that cannot be encoded exactly there is a Drop in its place; DataError where none can.
    """
    encoded: list[Encoded | Drop] = [Drop("special_token_in_text") for _ in conversations]
    # What looks like a special token in a text would be read as the template's own.
    sound = [number for number, each in enumerate(conversations) if not _has_special_token(each, tokenizer)]
    texts: list[Rendered] = []
    numbers: list[int] = []
    for number, rendered in zip(sound, render_all([conversations[each] for each in sound], tokenizer), strict=True):
        if isinstance(rendered, Drop):
            encoded[number] = rendered
        else:
            texts.append(rendered)
            numbers.append(number)
    tokens = tokenise_texts([each.text for each in texts], _plain_tokenizer(tokenizer))
    for number, rendered, of_text in zip(numbers, texts, tokens, strict=True):
        answers = [turn.content for turn in conversations[number].turns if turn.role == "assistant"]
        encoded[number] = _masked(rendered, answers, of_text)
    return encoded


def _masked(rendered: Rendered, answers: Sequence[str], tokens: Tokens) -> Encoded | Drop:
    """Mark what the answers' tokens are; the user begins, so every other turn is an answer."""
    text, spans = rendered.text, rendered.spans
    starts = [span.start for span in spans]
    edges = [
        (span.spoken, span.spoken + _end_of_turn(text[span.spoken : span.stop], answer), span.stop)
        for span, answer in zip(spans[1::2], answers, strict=True)
    ]
    places = byte_positions(text, np.array([*starts, *(place for edge in edges for place in edge)], dtype=np.int64))
    spoken, ends, stops = places[len(starts) :].reshape(-1, 3).T
    firsts, lasts = np.searchsorted(tokens.starts, (spoken, ends))
    lasts = np.minimum(lasts, np.searchsorted(tokens.stops, stops, side="right"))
    supervised = np.zeros(len(tokens.ids), dtype=np.bool_)
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        supervised[first:last] = True
    if not supervised.any():
        return Drop("no_supervised_token")
    turn_starts = np.searchsorted(tokens.starts, places[: len(starts)])
    return Encoded(tokens.ids, supervised, turn_starts.astype(np.int32))


def _end_of_turn(segment: str, content: str) -> int:
    """Length of an assistant's segment up to its end marker; white space is the marker only where nothing else is."""
    visible = segment.rstrip()
    return len(segment) if visible.endswith(content.strip()) else len(visible)


@functools.lru_cache(maxsize=4)
def _plain_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """Copy the tokenizer without its post-processor, which may trim offsets, and which adds only what is not wanted."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(_backend(tokenizer).to_str())
    plain.post_processor = None
    plain.no_truncation()
    plain.no_padding()
    return plain


def _has_special_token(conversation: Conversation, tokenizer: "PreTrainedTokenizerBase") -> bool:
    markers = _special_tokens(tokenizer)
    return markers is not None and any(markers.search(turn.content) for turn in conversation.turns)


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

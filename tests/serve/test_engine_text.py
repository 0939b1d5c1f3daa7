"""serve.engine_text: whole characters, nothing of a stop text, and the right tokens with each piece."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaletrain.serve.engine_sampling import Chosen
from scaletrain.serve.engine_text import AnswerText, TokenBytes
from scaletrain.serve.protocol import Piece
from tiny import TEXTS, tiny_tokenizer


def pieces_of(text: str, *stop: str) -> list[Piece]:
    """The pieces of a text whose tokens come one by one, with reports, up to the last."""
    tokenizer = tiny_tokenizer()
    answer, reports = AnswerText(tokenizer, stop), TokenBytes(tokenizer)
    pieces = []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        if piece := answer.push(token, reports.report(Chosen(token, -1.0))):
            pieces.append(piece)
            if piece.finish_reason is not None:
                return pieces
    return [*pieces, answer.end("stop", tokens=1)]


def joined(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_the_text(text: str) -> None:
    """Also where a character lies across tokens: no piece has half of one."""
    pieces = pieces_of(text)
    assert joined(pieces) == text
    assert all("\ufffd" not in piece.text for piece in pieces)
    assert b"".join(report.utf8 for piece in pieces for report in piece.logprobs) == text.encode()


@given(st.text("abc", max_size=40), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_part_of_a_stop_text_is_shown(text: str, stop: list[str]) -> None:
    """The answer is the beginning of the text up to a stop text, and all of it where there is none."""
    shown = joined(pieces_of(text, *stop))
    assert text.startswith(shown)
    assert not any(each in shown for each in stop)
    if not any(each in text for each in stop):
        assert shown == text
    else:
        assert any(text.startswith(each, len(shown)) for each in stop)


def test_reports_are_of_the_tokens_that_are_shown() -> None:
    """Tokens that lie wholly in the stop text or behind it have no report."""
    pieces = pieces_of("Hello! How are you today?", "How")
    assert joined(pieces) == "Hello! "
    shown = "".join(report.text for piece in pieces for report in piece.logprobs)
    assert shown.startswith("Hello!")
    assert "How" not in shown
    assert pieces[-1].finish_reason == "stop"


def test_what_could_become_a_stop_text_is_held_back_and_then_shown() -> None:
    """Nothing is lost where it does not become one, and every token is counted once."""
    pieces = pieces_of("abab abc", "abx")
    assert joined(pieces) == "abab abc"
    made = len(tiny_tokenizer()("abab abc", add_special_tokens=False)["input_ids"]) + 1
    assert sum(piece.tokens for piece in pieces) == made


def test_an_answer_that_ends_within_a_character_says_so() -> None:
    """The bytes that are there become a replacement character; without stop texts nothing else is held."""
    answer = AnswerText(tiny_tokenizer(), ())
    first, *_ = tiny_tokenizer()("\U0001f642", add_special_tokens=False)["input_ids"]
    assert answer.push(first, None) is None
    assert answer.end("length", tokens=0) == Piece("\ufffd", 1, (), "length")


def test_bytes_of_sentencepiece_tokens() -> None:
    """Tokens of a byte, a space before a word, and special tokens, as Llama's first tokenizer writes them."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "</s>", "<0xF0>", "\u2581Hello", "llo"]
    backend = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    reports = TokenBytes(tokenizer)
    assert [reports[token] for token in range(5)] == [b"<unk>", b"</s>", b"\xf0", b" Hello", b"llo"]

"""Tokens of an answer into pieces of text: whole characters, cut before a stop text, with reports of its tokens."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from scaletrain.model.generate import TextOfTokens
from scaletrain.serve.engine_sampling import Chosen
from scaletrain.serve.protocol import FinishReason, Piece, TokenLogprob

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class AnswerText:
    """The text of one answer as its tokens come; what could be the beginning of a stop text is held back."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str]) -> None:
        self._decoder = TextOfTokens(tokenizer)
        self._stop = tuple(stop)
        self._held = ""
        self._tokens = 0
        self._logprobs: list[TokenLogprob] = []

    def push(self, token: int, logprob: TokenLogprob | None, *, last: bool = False) -> Piece | None:
        """Take a token; returns what is certain now. The answer ends with a stop text, or by length where `last`."""
        self._tokens += 1
        if logprob is not None:
            self._logprobs.append(logprob)
        self._held += self._decoder.push(token)
        if last:
            return self.end("length", tokens=0)
        return self._stopped() or self._certain()

    def end(self, reason: FinishReason, *, tokens: int) -> Piece:
        """The last piece, with all that was held back; `tokens` more were made that have no text."""
        self._tokens += tokens
        self._held += self._decoder.rest()
        return self._stopped() or self._piece(len(self._held), reason)

    def _stopped(self) -> Piece | None:
        found = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if not found:
            return None
        cut = len(self._held) - min(found)
        while self._logprobs and len(self._logprobs[-1].text) <= cut:  # the whole token is after the answer's end
            cut -= len(self._logprobs.pop().text)
        return self._piece(min(found), "stop")

    def _certain(self) -> Piece | None:
        lengths = (
            length
            for stop in self._stop
            for length in range(min(len(stop) - 1, len(self._held)), 0, -1)
            if self._held.endswith(stop[:length])
        )
        certain = len(self._held) - max(lengths, default=0)
        return self._piece(certain, None) if certain else None

    def _piece(self, length: int, reason: FinishReason | None) -> Piece:
        piece = Piece(self._held[:length], self._tokens, tuple(self._logprobs), reason)
        self._held, self._tokens, self._logprobs = self._held[length:], 0, []
        return piece


class TokenBytes:
    """The bytes of single tokens, as they are in the text; each is looked up once."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.get_added_vocab().values())
        self._alphabet = _byte_alphabet() if _is_byte_level(tokenizer) else None
        self._known: dict[int, bytes] = {}

    def report(self, chosen: Chosen) -> TokenLogprob | None:
        """The report of a chosen token, where one was asked for."""
        if chosen.logprob is None:
            return None
        top = tuple(self._entry(token, logprob) for token, logprob in chosen.top)
        return self._entry(chosen.token, chosen.logprob, top)

    def _entry(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        utf8 = self[token]
        return TokenLogprob(token, utf8.decode(errors="replace"), utf8, logprob, top)

    def __getitem__(self, token: int) -> bytes:
        if token not in self._known:
            self._known[token] = self._bytes(token)
        return self._known[token]

    def _bytes(self, token: int) -> bytes:
        # A model's vocabulary can be larger than its tokenizer's: such a token has no name.
        name = str(self._tokenizer.convert_ids_to_tokens(token) or "")
        if token in self._special:
            return name.encode()
        if self._alphabet is not None:
            return b"".join(self._alphabet.get(letter, letter.encode()) for letter in name)
        byte = _BYTE.fullmatch(name)
        return bytes([int(byte[1], 16)]) if byte else name.replace("\u2581", " ").encode()


def _is_byte_level(tokenizer: "PreTrainedTokenizerBase") -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    decoder = orjson.loads(backend.to_str())["decoder"] or {}
    return any(part["type"] == "ByteLevel" for part in decoder.get("decoders", [decoder]) if part)


def _byte_alphabet() -> dict[str, bytes]:
    """The letter that byte-level tokenizers write for each byte (Radford et al. 2019, GPT-2): itself if it prints."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    return {letter: bytes([byte]) for letter, byte in letters.items()}

"""Texts become tokens, each with its place in the text's UTF-8 bytes.

A tokenizer that works on bytes leaves nothing out and adds nothing, so the lengths of its tokens say where each stands,
which costs less than asking for offsets. Whether it holds is looked at for every text: the tokens' bytes one behind
the other have to be the text. Where they are not (a normaliser, a prefix space, a tokenizer of another kind), the
tokenizer's own offsets are taken.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Int64s = npt.NDArray[np.int64]

# An encoding takes some hundred bytes a token as long as it lives, so only so much text is encoded at once.
_BATCH_CHARS = 2**18


@dataclass(frozen=True)
class Tokens:
    """A tokenised text: ids int32 [N]; starts and stops int64 [N], in bytes, neither of them ever falling."""

    ids: npt.NDArray[np.int32]
    starts: Int64s
    stops: Int64s


def tokenise_texts(texts: Sequence[str], tokenizer: "Tokenizer") -> Iterator[Tokens]:
    """Yield the tokens of each text, special tokens as they are written in it and no others."""
    table = _byte_table(tokenizer)
    for batch in _batches(texts):
        if table is None:
            encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
            yield from map(_from_offsets, batch, encodings)
            continue
        for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True):
            tokens = table.tokens(text, encoding.ids)
            yield tokens or _from_offsets(text, tokenizer.encode(text, add_special_tokens=False))


def byte_positions(text: str, positions: Int64s) -> Int64s:
    """Return where characters begin in the text's UTF-8 bytes; the position after the last one is the end."""
    if text.isascii():
        return positions
    data = np.frombuffer(text.encode(), np.uint8)
    begins = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))
    return begins[positions]


@dataclass(frozen=True)
class _ByteTable:
    """The bytes of every token of a tokenizer, by id, and how many they are."""

    tokens_bytes: Sequence[bytes]
    lengths: Int64s

    def tokens(self, text: str, ids: list[int]) -> Tokens | None:
        """Return the text's tokens, or None where their bytes do not add up to it."""
        if b"".join(map(self.tokens_bytes.__getitem__, ids)) != text.encode():
            return None
        array = np.array(ids, dtype=np.int32)
        lengths = self.lengths[array]
        stops = np.cumsum(lengths)
        return Tokens(array, stops - lengths, stops)


@functools.lru_cache(maxsize=4)
def _byte_table(tokenizer: "Tokenizer") -> _ByteTable | None:
    """Return None for a tokenizer whose vocabulary is not one of bytes."""
    added = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()}
    byte_of = _byte_of_character()
    tokens_bytes = [b""] * (1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1))
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if number in added:
            tokens_bytes[number] = added[number].encode()
        elif all(character in byte_of for character in token):
            tokens_bytes[number] = bytes(byte_of[character] for character in token)
        else:
            return None
    return _ByteTable(tokens_bytes, np.array([len(each) for each in tokens_bytes], dtype=np.int64))


def _byte_of_character() -> dict[str, int]:
    """How byte-level vocabularies write bytes (GPT-2's): printable Latin-1 as itself, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _from_offsets(text: str, encoding: "Encoding") -> Tokens:
    offsets = byte_positions(text, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2))
    return Tokens(np.array(encoding.ids, dtype=np.int32), offsets[:, 0], offsets[:, 1])


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        batch.append(text)
        num_chars += len(text)
        if num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch

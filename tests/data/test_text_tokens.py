"""text_tokens: where tokens stand in a text, whatever the tokenizer does to it."""

import numpy as np
import pytest
from byte_tokenizer import make_byte_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from scaletrain.data.text_tokens import byte_positions, tokenise_texts

TEXTS = ["", "as", "ass a<|im_end|>\n", "吃了吗？🍜 as", "é e\u0301 ﬁ"]


def words(*, prefix: bool = False) -> Tokenizer:
    """Bytes, with merges inside and across characters."""
    tokenizer = make_byte_tokenizer(merges=[("a", "s"), ("as", "s"), ("\x61", "\x20")]).backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_the_places_of_bytes_are_those_of_offsets(text: str) -> None:
    """What lengths say is what the tokenizer's own offsets say, up to the character that a token is a part of."""
    tokenizer = words()
    [tokens] = tokenise_texts([text], tokenizer)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert tokens.ids.tolist() == encoding.ids
    characters = byte_positions(text, np.arange(len(text) + 1))
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    assert np.searchsorted(tokens.starts, characters).tolist() == (
        np.searchsorted(characters[offsets[:, 0]], characters).tolist()
    )
    assert np.searchsorted(tokens.stops, characters, side="right").tolist() == (
        np.searchsorted(characters[offsets[:, 1]], characters, side="right").tolist()
    )


def test_a_text_that_its_tokens_do_not_spell_is_placed_by_offsets() -> None:
    """A normaliser and a prefix space change bytes; the places are still those of the text as it was."""
    tokenizer = words(prefix=True)
    tokenizer.normalizer = normalizers.Lowercase()
    spelled, changed = tokenise_texts([" as", "ÄS as"], tokenizer)
    assert (spelled.starts.tolist(), spelled.stops.tolist()) == ([0, 1], [1, 3])
    assert (changed.starts[-1], changed.stops[-1]) == (4, 6)
    assert changed.stops.max() == len("ÄS as".encode())


def test_a_tokenizer_of_words_is_placed_by_offsets() -> None:
    """A vocabulary that is not one of bytes has no lengths in bytes."""
    tokenizer = Tokenizer(models.WordLevel({"你好": 0, "吃": 1}, unk_token="吃"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    [tokens] = tokenise_texts(["你好  你好"], tokenizer)
    assert (tokens.starts.tolist(), tokens.stops.tolist()) == ([0, 8], [6, 14])
    assert tokens.ids.tolist() == [0, 0]


def test_many_texts_keep_their_order() -> None:
    """Texts are tokenised in parts of bounded size, and none is lost between two."""
    texts = ["a" * length for length in (100_000, 200_000, 0, 1, 300_000, 5)]
    assert [len(each.ids) for each in tokenise_texts(texts, make_byte_tokenizer().backend_tokenizer)] == [
        100_000,
        200_000,
        0,
        1,
        300_000,
        5,
    ]

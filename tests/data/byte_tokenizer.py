"""A tokenizer whose ids are known by heart, so that tests can write down what they expect."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from scaletrain.model.tokenizer import CHATML

IM_START, IM_END, PAD, FIRST_MERGE = 256, 257, 258, 259
_SPECIAL = {"<|im_start|>": IM_START, "<|im_end|>": IM_END, "<|pad|>": PAD}


def make_byte_tokenizer(
    *, chat_template: str | None = CHATML, merges: Sequence[tuple[str, str]] = ()
) -> PreTrainedTokenizerFast:
    """Ids below 256 are the bytes of UTF-8; then come <|im_start|>, <|im_end|>, <|pad|>, and the merges from 259."""
    letter = bytes_to_unicode()
    spelled = [("".join(map(letter.get, a.encode())), "".join(map(letter.get, b.encode()))) for a, b in merges]
    vocabulary = {letter[byte]: byte for byte in range(256)} | _SPECIAL
    vocabulary |= {left + right: FIRST_MERGE + number for number, (left, right) in enumerate(spelled)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=spelled))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=chat_template
    )

"""Tokenizers: a byte-level BPE trained on the corpus, and the chat template of a tokenizer that brings none."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from scaletrain.errors import ModelError
from scaletrain.log import get_logger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
TRAINING_CHARACTERS = 20_000_000

# ChatML (https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md), without a default system prompt.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# For a tokenizer without ChatML's tokens: a turn ends with its end-of-text token; the roles are ordinary text.
PLAIN = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

log = get_logger(__name__)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerBase":
    """Train a byte-level BPE of at most `vocab_size` tokens (Sennrich et al. 2016, arXiv:1508.07909), with ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    assert vocab_size >= 256 + len(SPECIAL_TOKENS), "smaller sizes are refused with the configuration"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    make: Callable[..., PreTrainedTokenizerBase] = PreTrainedTokenizerFast
    return make(tokenizer_object=tokenizer, eos_token=END_OF_TURN, pad_token=END_OF_TEXT, chat_template=CHATML)


def training_texts(corpus_texts: Callable[[], Iterable[str]]) -> Iterator[str]:
    """The beginning of the corpus that a tokenizer is trained on; raises ModelError where there is no text."""
    left = TRAINING_CHARACTERS
    for text in corpus_texts():
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return
    if left == TRAINING_CHARACTERS:
        raise ModelError(
            "there is no text to train a tokenizer on: nothing is said in the conversations of data.corpora"
        )


def texts_hash(texts: Iterable[str]) -> str:
    """A hash of a sequence of texts."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def complete(tokenizer: "PreTrainedTokenizerBase", *, source: str) -> bool:
    """Give a tokenizer the chat template and padding token it lacks; returns whether anything was changed."""
    changed = False
    if not tokenizer.chat_template:
        has_chatml = {START_OF_TURN, END_OF_TURN} <= tokenizer.get_vocab().keys()
        if not has_chatml and tokenizer.eos_token is None:
            raise ModelError(f"{source}: the tokenizer has no chat template and no end-of-text token to build one with")
        tokenizer.chat_template = CHATML if has_chatml else PLAIN
        kind = "ChatML" if has_chatml else "roles as plain text, turns ended by its end-of-text token"
        log.warning(
            "%s has no chat template; it gets a default one (%s); set data.chat_template for your own", source, kind
        )
        changed = True
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"{source}: the tokenizer has neither a padding nor an end-of-text token; give it one")
        tokenizer.pad_token = tokenizer.eos_token
        changed = True
    return changed

"""Pairs of answers as documents: both conversations of a pair, one behind the other, and only the answers supervised.

So a pair is one piece to the packer, which keeps its halves in one row, and two documents to the model, which do not
see each other. The prompt is there twice, once before each answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import orjson
import xxhash

from scaletrain.data.chat_template import Encoded, encode_all
from scaletrain.data.cleaning import Step, clean
from scaletrain.data.conversation import Conversation, Drop, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def both(pair: Conversation) -> tuple[Conversation, Conversation]:
    """The conversation with the answer that was preferred, and that with the other one."""
    assert pair.rejected is not None
    other = (*pair.turns[:-1], Turn("assistant", pair.rejected))
    return replace(pair, rejected=None), replace(pair, turns=other, rejected=None)


def clean_pair(pair: Conversation, steps: Sequence[Step]) -> Conversation:
    """Clean both conversations alike; raises Drop where either is dropped, or nothing is left to prefer."""
    chosen, rejected = (clean(each, steps) for each in both(pair))
    if {chosen.turns[-1].role, rejected.turns[-1].role} != {"assistant"}:
        raise Drop("pair_without_answers")
    if chosen.turns[:-1] != rejected.turns[:-1]:
        raise Drop("prompts_differ_when_cleaned")
    if chosen.turns == rejected.turns:
        raise Drop("answers_are_equal_when_cleaned")
    changes = dict.fromkeys((*chosen.changes, *rejected.changes))
    return replace(chosen, changes=tuple(changes), rejected=rejected.turns[-1].content)


def encode_documents(
    conversations: Sequence[Conversation], tokenizer: "PreTrainedTokenizerBase"
) -> list[Encoded | Drop]:
    """Tokenise conversations, and pairs, which have two turns: the one half and the other.

    A Drop stands for one that cannot be encoded exactly.
    """
    halves = [half for each in conversations for half in ((each,) if each.rejected is None else both(each))]
    encoded = iter(encode_all(halves, tokenizer))
    return [next(encoded) if each.rejected is None else _joined(next(encoded), next(encoded)) for each in conversations]


def key_of(conversation: Conversation) -> bytes:
    """A hash of what is said, 16 bytes, equal for equal conversations; the first half of a pair's is of its prompt.

    What is held out is decided by the first half, so that a prompt is not trained on with one pair and held out with
    another.
    """
    if conversation.rejected is None:
        return xxhash.xxh3_128_digest(orjson.dumps(conversation.messages()))
    *prompt, chosen = conversation.messages()
    answers = [chosen["content"], conversation.rejected]
    return xxhash.xxh3_64_digest(orjson.dumps(prompt)) + xxhash.xxh3_64_digest(orjson.dumps([prompt, answers]))


def _joined(chosen: Encoded | Drop, rejected: Encoded | Drop) -> Encoded | Drop:
    if isinstance(chosen, Drop) or isinstance(rejected, Drop):
        return chosen if isinstance(chosen, Drop) else rejected
    answers = [_last_answer(each) for each in (chosen, rejected)]
    if not all(each.any() for each in answers):
        return Drop("no_supervised_token")
    return Encoded(
        np.concatenate([chosen.input_ids, rejected.input_ids]),
        np.concatenate(answers),
        np.array([0, len(chosen.input_ids)], np.int32),
    )


def _last_answer(encoded: Encoded) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    supervised = encoded.supervised.copy()
    supervised[: encoded.turn_starts[-1]] = False
    return supervised

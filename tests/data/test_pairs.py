"""Pairs as rows: both conversations side by side in one row, only the answers learned from, every pair there once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dumps import write_jsonl
from pair_dumps import BAD, GOOD, pair
from prepared import documents_of, statistics_of

from scaletrain.config import Config
from scaletrain.config_data import Corpus, DataSection
from scaletrain.data.chat_template import Encoded, encode
from scaletrain.data.check import check_dataset
from scaletrain.data.cleaning import load_steps
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.data.pairs import both, clean_pair, encode_documents, key_of
from scaletrain.data.prepare import Prepared, prepare
from scaletrain.data.rows import read_samples
from scaletrain.data.shards import load_index
from scaletrain.model.build import load_tokenizer
from tiny import tiny_tokenizer

ASKED = (Turn("user", "Hello"), Turn("assistant", "Hi."), Turn("user", "How are you?"))


def conversation(chosen: str, rejected: str) -> Conversation:
    return Conversation((*ASKED, Turn("assistant", chosen)), rejected=rejected)


def prepared_pairs(folder: Path, rows: list[dict[str, Any]], **data: Any) -> Prepared:
    """Prepare rows of pairs for a tiny random model."""
    corpus = {"format": "preferences", "source": str(write_jsonl(folder / "pairs.jsonl", rows))}
    size = {"vocab_size": 300, "hidden_size": 16, "num_heads": 2}
    config = {
        "name": "test",
        "storage": {"root": str(folder / "bucket")},
        "model": {"init": "random", "size": size},
        "data": {"corpora": [corpus], "seq_len": 128, **data},
        "train": {"steps": 1, "objective": "dpo"},
    }
    return prepare(Config.model_validate(config), use_ray=False)


def test_both_halves_are_cleaned_alike() -> None:
    """A pair whose answers are the same once they are clean, or of which one is empty, is left out."""
    steps = load_steps(DataSection(corpora=(Corpus(format="preferences", source="a"),)))
    cleaned = clean_pair(conversation("ﬁne  ", "bad"), steps)
    assert (cleaned.turns[:-1], cleaned.turns[-1].content, cleaned.rejected) == (ASKED, "ﬁne  ", "bad")
    for chosen, rejected, reason in (
        ("caf\u00e9", "cafe\u0301", "answers_are_equal_when_cleaned"),
        ("fine", " ", "pair_without_answers"),
    ):
        with pytest.raises(Drop, match=reason):
            clean_pair(conversation(chosen, rejected), steps)


def test_only_the_two_answers_are_supervised() -> None:
    """Earlier answers are part of the prompt; each half has the tokens that it would have alone."""
    tokenizer, made = tiny_tokenizer(), conversation(GOOD, BAD)
    (found,) = encode_documents([made], tokenizer)
    chosen, rejected = (encode(each, tokenizer) for each in both(made))
    assert isinstance(found, Encoded)
    assert found.turn_starts.tolist() == [0, len(chosen.input_ids)]
    np.testing.assert_array_equal(found.input_ids, np.concatenate([chosen.input_ids, rejected.input_ids]))
    halves = np.split(found.input_ids, found.turn_starts[1:]), np.split(found.supervised, found.turn_starts[1:])
    assert [tokenizer.decode(ids[mask]) for ids, mask in zip(*halves, strict=True)] == [
        f"{GOOD}<|im_end|>",
        f"{BAD}<|im_end|>",
    ]


def test_pairs_of_one_prompt_have_half_a_key_in_common() -> None:
    """What is held out is decided by the first half, so all of a prompt's pairs are; equal pairs have equal keys."""
    first, second = key_of(conversation("a", "b")), key_of(conversation("a", "c"))
    assert first[:8] == second[:8]
    assert first[8:] != second[8:]
    assert key_of(conversation("b", "a")) != first == key_of(conversation("a", "b"))


def test_a_pair_is_in_one_row_and_none_is_lost(tmp_path: Path) -> None:
    """The halves stand side by side, whatever else the row holds; what no row can hold is counted; checks find all."""
    rows = [pair(f"How are you, number {i}?", GOOD * (i % 3 + 1)) for i in range(40)]
    long = pair("Tell me everything.", " ".join(str(7919 * i) for i in range(99)))
    made = prepared_pairs(tmp_path, [*rows, rows[0], long], validation=0)
    documents, index = documents_of(made.dataset_url), load_index(made.dataset_url)
    tokenizer = load_tokenizer(made.model_url)
    answers = [tokenizer.decode([token for token in labels if token != -100]) for _, labels in documents]
    assert index.pairs
    assert len(documents) == 80
    assert {answer.removesuffix(tokenizer.eos_token) for answer in answers[1::2]} == {BAD}
    assert all(answer.startswith(GOOD) for answer in answers[::2])
    prompts = [ids[: next(i for i, label in enumerate(labels) if label != -100)] for ids, labels in documents]
    assert prompts[::2] == prompts[1::2]
    assert len({tuple(prompt) for prompt in prompts}) == 40
    assert check_dataset(made.dataset_url).problems == []
    statistics = statistics_of(made.dataset_url)
    assert statistics["splits"]["train"]["dropped_pieces"] == {"pair_longer_than_seq_len": 1}
    assert statistics["corpora"][0]["dropped"] == {"duplicate": 1}
    samples = read_samples(made.dataset_url, index, split="train", ids=np.arange(index.splits["train"].rows))
    assert (samples.documents.max(axis=1) % 2 == 0).all()


def test_a_prompt_is_trained_on_or_held_out(tmp_path: Path) -> None:
    """Pairs of one prompt are not near-duplicates of one another, and are all in the same split."""
    rows = [pair(f"Question {i // 3}, which is a long one?", GOOD, f"{BAD} {i}") for i in range(60)]
    made = prepared_pairs(tmp_path, rows, validation=0.3)
    prompts = {
        split: [tuple(ids[: labels.index(next(x for x in labels if x != -100))]) for ids, labels in documents[::2]]
        for split in ("train", "validation")
        for documents in [documents_of(made.dataset_url, split)]
    }
    assert len(prompts["train"]) + len(prompts["validation"]) == 60
    assert prompts["validation"] and not set(prompts["train"]) & set(prompts["validation"])

"""Scoring: the right loss, depth, bytes and confidence for every answer in packed rows."""

import numpy as np
import pytest
import torch

from scaletrain.data.loader import MicroBatch
from scaletrain.evaluate.scoring import Scored, join, score_rows, score_tokens, supervised
from tiny import tiny_model, tiny_tokenizer

Document = tuple[list[int], list[bool], int]  # token ids, which are supervised, corpus


def document(text: str, *, corpus: int = 0, answers: int = 1) -> Document:
    """A text whose second half is supervised, `answers` times one behind the other."""
    ids = tiny_tokenizer()(text)["input_ids"]
    mask = [place >= len(ids) // 2 for place in range(len(ids))]
    return ids * answers, mask * answers, corpus


def micro_batch(rows: list[list[Document]], *, seq_len: int = 96) -> MicroBatch:
    """Pack documents into rows."""
    shape = (len(rows), seq_len)
    arrays = {name: np.zeros(shape, dtype=np.int32) for name in ("input_ids", "positions", "documents")}
    labels, corpora = np.full(shape, -100, dtype=np.int32), np.full(shape, -1, dtype=np.int32)
    for row, documents in enumerate(rows):
        start = 0
        for number, (ids, mask, corpus) in enumerate(documents, start=1):
            here = slice(start, start + len(ids))
            arrays["input_ids"][row, here] = ids
            arrays["positions"][row, here] = np.arange(len(ids))
            arrays["documents"][row, here] = number
            corpora[row, here] = corpus
            labels[row, here] = np.where(mask, ids, -100)
            labels[row, start] = -100
            start = here.stop
    return MicroBatch(
        sample_ids=np.arange(len(rows)) + 40,
        labels=labels,
        corpora=corpora,
        tokens=int((arrays["documents"] > 0).sum()),
        supervised_tokens=int((labels != -100).sum()),
        weight=1.0,
        **arrays,
    )


def score(*batches: MicroBatch) -> Scored:
    return join(list(score_rows(tiny_model(), tiny_tokenizer(), batches, on_rows=lambda rows: None)))


def alone(ids: list[int], mask: list[bool]) -> float:
    """The loss of a document's supervised tokens, in a batch of its own."""
    labels = torch.tensor([[token if kept else -100 for token, kept in zip(ids, mask, strict=True)]])
    return tiny_model()(input_ids=torch.tensor([ids]), labels=labels).loss.item() * sum(mask)


TEXTS = ("Hello! How are you today?", "I like to read.", "Can you recommend a good film?")


def test_a_packed_document_has_the_loss_it_has_alone() -> None:
    """Neighbours in a row, padding and other rows do not touch an answer's loss."""
    first, second, third = (document(text, corpus=corpus) for text, corpus in zip(TEXTS, (0, 1, 0), strict=True))
    rows = score(micro_batch([[first, second], [third]])).rows
    assert rows.nll == pytest.approx([alone(ids, mask) for ids, mask, _ in (first, second, third)], rel=1e-5)
    assert rows.corpus.tolist() == [0, 1, 0]
    assert rows.sample_id.tolist() == [40, 40, 41]
    assert rows.document.tolist() == [1, 2, 1]
    assert rows.document_tokens.tolist() == [len(ids) for ids, _, _ in (first, second, third)]


def test_every_answer_counts_by_its_place_in_the_conversation() -> None:
    """The second answer has depth 2, its own loss, and the first document's answers do not move the second's."""
    twice, once = document("I like to read.", answers=2), document("Hello!")
    rows = score(micro_batch([[twice, once]])).rows
    assert rows.depth.tolist() == [1, 2, 1]
    assert rows.nll[:2].sum() == pytest.approx(alone(twice[0], twice[1]), rel=1e-5)


def test_bytes_are_those_of_what_is_said() -> None:
    """Characters count by their UTF-8 bytes, the mark that ends a turn by none."""
    words = tiny_tokenizer()
    said = words("naïve 你好")["input_ids"] + [words.eos_token_id]
    header = words("Hello!")["input_ids"]
    rows = score(micro_batch([[(header + said, [False] * len(header) + [True] * len(said), 0)]])).rows
    assert rows.size_bytes.tolist() == [len("naïve 你好".encode())]
    assert rows.tokens.tolist() == [len(said)]


def test_documents_of_all_micro_batches_are_counted_and_reported() -> None:
    """Every row of every micro batch is measured, and progress is told of each."""
    told: list[int] = []
    one = document("I like to read.")
    batches = [micro_batch([[one], [one]]), micro_batch([[one]])]
    parts = list(score_rows(tiny_model(), tiny_tokenizer(), batches, on_rows=told.append))
    assert len(join(parts).rows.nll) == 3
    assert told == [2, 1]


def test_a_document_without_supervised_tokens_does_not_count() -> None:
    """A piece of a conversation that holds only the user's words is nothing to measure."""
    ids, mask, _ = document("I like to read.")
    rows = score(micro_batch([[(ids, [False] * len(ids), 0), (ids, mask, 0)]])).rows
    assert rows.document.tolist() == [2]


def test_confidence_and_accuracy_are_those_of_the_softmax() -> None:
    """The likeliest token's probability, and whether it came, as a plain forward pass says; loss too."""
    model, ids = tiny_model(), np.array([tiny_tokenizer()(TEXTS[0])["input_ids"]])
    where = np.arange(1, ids.shape[1])
    found = score_tokens(model, ids, where)
    with torch.no_grad():
        probabilities = model(input_ids=torch.from_numpy(ids)).logits[0, :-1].softmax(-1)
    confidence, best = probabilities.max(-1)
    targets = torch.from_numpy(ids[0, 1:])
    assert found.confidence == pytest.approx(confidence.numpy(), rel=1e-5)
    assert found.correct.tolist() == (best == targets).tolist()
    assert found.nll == pytest.approx(-probabilities[range(len(targets)), targets].log().numpy(), rel=1e-5)


def test_a_rows_first_token_is_never_scored() -> None:
    """There is nothing before it that could predict it."""
    assert supervised(np.array([[5, 6, -100], [-100, 7, 8]])).tolist() == [1, 4, 5]

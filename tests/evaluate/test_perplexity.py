"""Perplexity: the right loss for every document, and honest figures made of them."""

import numpy as np
import pytest
import torch

from scaletrain.data.loader import MicroBatch
from scaletrain.evaluate.perplexity import DocumentLosses, changes, document_losses, perplexities
from tiny import tiny_model, tiny_tokenizer


def _micro_batch(rows: list[list[tuple[list[int], int]]], *, seq_len: int = 48) -> MicroBatch:
    """Pack rows of (token ids, corpus); the second half of each document is supervised."""
    arrays = {name: np.zeros((len(rows), seq_len), dtype=np.int32) for name in ("input_ids", "positions", "documents")}
    labels = np.full((len(rows), seq_len), -100, dtype=np.int32)
    corpora = np.full((len(rows), seq_len), -1, dtype=np.int32)
    for row, documents in enumerate(rows):
        start = 0
        for number, (ids, corpus) in enumerate(documents, start=1):
            here = slice(start, start + len(ids))
            arrays["input_ids"][row, here] = ids
            arrays["positions"][row, here] = np.arange(len(ids))
            arrays["documents"][row, here] = number
            corpora[row, here] = corpus
            labels[row, start + len(ids) // 2 : here.stop] = ids[len(ids) // 2 :]
            start = here.stop
    return MicroBatch(
        sample_ids=np.arange(len(rows)),
        labels=labels,
        corpora=corpora,
        tokens=int((arrays["documents"] > 0).sum()),
        supervised_tokens=int((labels != -100).sum()),
        weight=1.0,
        **arrays,
    )


def _losses(tokens: list[int], nll: list[float], corpus: list[int] | None = None) -> DocumentLosses:
    return DocumentLosses(
        corpora=("chat", "news"),
        corpus=np.array(corpus or [0] * len(tokens)),
        tokens=np.array(tokens),
        nll=np.array(nll, dtype=np.float64),
    )


def _alone(model: torch.nn.Module, ids: list[int]) -> float:
    """The loss of a document's second half, in a batch of its own."""
    input_ids = torch.tensor([ids])
    labels = input_ids.clone()
    labels[:, : len(ids) // 2] = -100
    return model(input_ids=input_ids, labels=labels).loss.item() * (len(ids) - len(ids) // 2)


def test_a_packed_document_has_the_loss_it_has_alone() -> None:
    """Neighbours in a row, padding and other rows do not touch a document's loss."""
    words = tiny_tokenizer()
    texts = ("Hello! How are you today?", "I like to read.", "Can you recommend a good film?")
    first, second, third = (words(text)["input_ids"] for text in texts)
    model = tiny_model()
    micro_batch = _micro_batch([[(first, 0), (second, 1)], [(third, 0)]], seq_len=80)

    losses = document_losses(model, [micro_batch], corpora=("chat", "news"), on_rows=lambda rows: None)

    expected = [_alone(model, ids) for ids in (first, second, third)]
    assert losses.nll == pytest.approx(expected, rel=1e-5)
    assert losses.corpus.tolist() == [0, 1, 0]
    assert losses.tokens.tolist() == [len(ids) - len(ids) // 2 for ids in (first, second, third)]


def test_documents_of_all_micro_batches_are_counted_and_reported() -> None:
    """Every row of every micro batch is measured, and progress is told of each."""
    ids = tiny_tokenizer()("I like to read.")["input_ids"]
    rows: list[int] = []
    batches = [_micro_batch([[(ids, 0)], [(ids, 0)]]), _micro_batch([[(ids, 0)]])]
    losses = document_losses(tiny_model(), batches, corpora=("chat",), on_rows=rows.append)
    assert len(losses.nll) == 3
    assert rows == [2, 1]


def test_a_document_without_supervised_tokens_does_not_count() -> None:
    """A piece of a conversation that holds only the user's words is no document to measure."""
    ids = tiny_tokenizer()("I like to read.")["input_ids"]
    micro_batch = _micro_batch([[(ids, 0), (ids, 0)]])
    micro_batch.labels[:, : len(ids)] = -100
    losses = document_losses(tiny_model(), [micro_batch], corpora=("chat",), on_rows=lambda rows: None)
    assert losses.tokens.tolist() == [len(ids) - len(ids) // 2]


def test_perplexity_is_per_supervised_token() -> None:
    """A long document weighs as much as it has supervised tokens."""
    everything, *_ = perplexities(_losses([1, 9], [np.log(100.0), 9 * np.log(10.0)]))
    assert everything.value == pytest.approx(np.exp((np.log(100.0) + 9 * np.log(10.0)) / 10))
    assert everything.bits_per_token == pytest.approx(np.log2(everything.value))


def test_each_corpus_is_reported_after_all() -> None:
    """The first figure is of everything, then comes every corpus that has documents."""
    figures = perplexities(_losses([2, 3, 4], [2.0, 6.0, 4.0], corpus=[0, 1, 0]))
    assert [(each.corpus, each.tokens, each.documents) for each in figures] == [
        ("all", 9, 3),
        ("chat", 6, 2),
        ("news", 3, 1),
    ]


def test_a_corpus_without_held_out_documents_is_left_out() -> None:
    """No figure is made of nothing."""
    assert [each.corpus for each in perplexities(_losses([2], [1.0]))] == ["all", "chat"]


def test_the_interval_holds_the_value_and_narrows_with_documents() -> None:
    """More documents of the same kind make a surer figure."""
    generator = np.random.default_rng(1)
    nll = generator.gamma(4.0, size=400).tolist()
    few, *_ = perplexities(_losses([1] * 40, nll[:40]))
    many, *_ = perplexities(_losses([1] * 400, nll))
    for figure in (few, many):
        assert figure.low < figure.value < figure.high
    assert many.high - many.low < few.high - few.low


def test_equal_models_have_no_change_at_all() -> None:
    """Where nothing was learned the change and its interval are exactly zero."""
    losses = _losses([3, 5, 2], [3.0, 9.0, 1.0])
    change = changes(losses, losses)["all"]
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)


def test_the_change_is_paired_by_document() -> None:
    """The same gain on easy and hard documents is seen surely, however much the documents differ."""
    before = _losses([1] * 20, np.linspace(1.0, 9.0, 20).tolist())
    after = _losses([1] * 20, np.linspace(0.9, 8.9, 20).tolist())
    change = changes(before, after)["all"]
    assert change.value == pytest.approx(np.exp(-0.1) - 1)
    assert change.high - change.low < 1e-6

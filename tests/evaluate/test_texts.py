"""Running text: every token is scored once, with enough before it, whatever the text's length."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from scaletrain.errors import DataError
from scaletrain.evaluate.texts import TextLosses, read_texts, rolling_windows, text_losses
from tiny import TEXTS, tiny_model, tiny_tokenizer


@pytest.mark.parametrize(
    ("length", "context", "stride"), [(1, 8, 4), (7, 8, 4), (8, 8, 4), (50, 8, 3), (50, 8, 7), (50, 8, 1)]
)
def test_windows_score_every_token_once_with_enough_before_it(length: int, context: int, stride: int) -> None:
    """Whatever the stride, windows are no longer than the context, and their new parts are the text."""
    windows = list(rolling_windows(range(100, 100 + length), begin=1, context=context, stride=stride))
    scored = [token for window in windows for token in window.input_ids[len(window.input_ids) - window.scored :]]
    assert scored == list(range(100, 100 + length))
    assert all(len(window.input_ids) <= context for window in windows)
    assert all(len(window.input_ids) - window.scored >= context - stride for window in windows[1:])
    assert windows[0].input_ids[0] == 1


def score(texts: list[str], *, context: int, stride: int, at_once: int = 2) -> TextLosses:
    return text_losses(
        tiny_model(), tiny_tokenizer(), texts, url="x.txt", context=context, stride=stride, windows_at_once=at_once
    )


def test_a_text_that_fits_has_the_loss_of_one_forward_pass() -> None:
    """The token that ends texts stands before the first one, which is scored too."""
    words = tiny_tokenizer()
    ids = torch.tensor([[words.eos_token_id, *words(TEXTS[1])["input_ids"]]])
    expected = tiny_model()(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    found = score([TEXTS[1]], context=128, stride=64)
    assert found.nll.tolist() == pytest.approx([expected], rel=1e-5)
    assert (found.tokens.tolist(), found.size_bytes.tolist()) == ([ids.shape[1] - 1], [len(TEXTS[1])])


def test_a_long_text_is_scored_as_windows_one_by_one_say() -> None:
    """Windows that run together, of texts of several lengths, do not touch one another."""
    together = score(list(TEXTS), context=16, stride=8, at_once=7)
    one_by_one = score(list(TEXTS), context=16, stride=8, at_once=1)
    assert together.nll == pytest.approx(one_by_one.nll, rel=1e-5)
    assert together.tokens.tolist() == [len(tiny_tokenizer()(text)["input_ids"]) for text in TEXTS]


def test_an_interval_needs_several_texts() -> None:
    """One text has no interval, several have one around their bits per byte."""
    assert score([TEXTS[0]], context=32, stride=16).record()["bits_per_byte_low"] is None
    record = score(list(TEXTS), context=32, stride=16).record()
    assert record["bits_per_byte_low"] < record["bits_per_byte"] < record["bits_per_byte_high"]  # type: ignore[operator]


def test_files_are_read_whole_or_row_by_row(tmp_path: Path) -> None:
    """A .txt is one text, a .jsonl one in each row, and a row without text is named by its place."""
    (tmp_path / "book.txt").write_text("One.\n\nTwo.")
    assert read_texts(str(tmp_path / "book.txt")) == ["One.\n\nTwo."]
    (tmp_path / "rows.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    assert read_texts(str(tmp_path / "rows.jsonl")) == ["One.", "Two."]
    (tmp_path / "bad.jsonl").write_text('{"text": "One."}\n{"txt": "Two."}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: has no text"):
        read_texts(str(tmp_path / "bad.jsonl"))
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_texts(str(tmp_path / "empty.txt"))


def test_windows_pair_up_without_a_gap() -> None:
    """Each window begins where its context says, so neighbours overlap by the context less the stride."""
    windows = list(rolling_windows(range(100), begin=-1, context=10, stride=4))
    for before, after in pairwise(windows[:-1]):
        assert list(after.input_ids)[:6] == list(before.input_ids)[4:]

"""show: rows of a dataset decoded, with what is learned from marked."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from scaletrain import storage
from scaletrain.data.decoded import Span, decode_spans, spans_text
from scaletrain.data.prepare import Prepared
from scaletrain.data.shards import load_index
from scaletrain.data.show import find_model, rows_display, show_rows
from scaletrain.errors import ConfigError, ModelError
from scaletrain.model.build import load_tokenizer
from varied import EVIL, prepare_varied


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The varied dataset."""
    return prepare_varied(tmp_path_factory.mktemp("varied"))


def test_rows_are_decoded_with_what_is_learned_from(prepared: Prepared) -> None:
    """The spans put together are the row's text; the assistant's words are supervised, the user's are not."""
    (row,) = show_rows(prepared.dataset_url, count=1)
    stored = pq.read_table(storage.join(prepared.dataset_url, "shard-00000.parquet")).to_pylist()[0]
    tokenizer = load_tokenizer(prepared.model_url)
    assert "".join(span.text for span in row.spans) == tokenizer.decode(stored["input_ids"][: stored["tokens"]])
    assert (row.tokens, row.supervised_tokens) == (stored["tokens"], stored["supervised_tokens"])
    assert len(row.corpora) == len(stored["document_lengths"]) == row.spans[-1].document
    learned = "".join(span.text for span in row.spans if span.supervised)
    assert EVIL in learned or "Hi!" in learned
    assert "Is " not in learned and "Hello" not in learned


def test_a_seed_draws_other_rows_and_always_the_same(prepared: Prepared) -> None:
    """Without one they are the first; a count beyond the split gives all of it; one row can be asked for by its id."""
    url = prepared.dataset_url
    assert [row.sample_id for row in show_rows(url, count=3)] == [0, 1, 2]
    drawn = [row.sample_id for row in show_rows(url, count=3, seed=1)]
    assert drawn == [row.sample_id for row in show_rows(url, count=3, seed=1)] != [0, 1, 2]
    everything = show_rows(url, split="validation", count=1000)
    assert len(everything) == load_index(url).splits["validation"].rows
    (only,) = show_rows(url, sample_id=4)
    assert only.sample_id == 4


def test_wrong_arguments_are_all_told_at_once(prepared: Prepared) -> None:
    """A split that is not there, no rows, and a sample beyond the last."""
    with pytest.raises(ConfigError) as caught:
        show_rows(prepared.dataset_url, split="test", count=0)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["--split=test", "--n=0"]
    with pytest.raises(ConfigError, match=r"--sample=9999: the train split has the samples 0 to \d+"):
        show_rows(prepared.dataset_url, sample_id=9999)


def test_the_tokenizer_is_found_beside_the_dataset(prepared: Prepared, tmp_path: Path) -> None:
    """By its hash; a dataset that stands alone says what is missing."""
    index = load_index(prepared.dataset_url)
    assert find_model(prepared.dataset_url, index) == prepared.model_url
    with pytest.raises(ModelError, match="no model here has the tokenizer"):
        find_model(str(tmp_path / "data" / "alone"), index)


def test_a_terminal_shows_colours_and_no_escape_sequences_of_strangers(prepared: Prepared) -> None:
    """Supervised is green, documents are apart, and a control character in a text is shown as a picture."""
    terminal = Console(force_terminal=True, color_system="standard", width=120)
    with terminal.capture() as shown:
        terminal.print(spans_text([Span(1, False, "Hi"), Span(1, True, "\x1b[2JHo"), Span(2, False, "Bye")]))
        terminal.print(rows_display(show_rows(prepared.dataset_url, count=2)))
    assert "\x1b[2mHi" in shown.get() and "\x1b[32m␛[2JHo" in shown.get() and "next document" in shown.get()
    assert "\x1b[2J" not in shown.get()


def test_padding_is_left_out(prepared: Prepared) -> None:
    """Document 0 is no text."""
    ids, documents = np.array([5, 6, 7, 0, 0]), np.array([1, 1, 2, 0, 0])
    spans = decode_spans(
        ids, np.array([False, True, True, False, False]), documents, load_tokenizer(prepared.model_url)
    )
    assert [(span.document, span.supervised) for span in spans] == [(1, False), (1, True), (2, True)]

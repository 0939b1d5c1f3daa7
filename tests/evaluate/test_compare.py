"""Evaluating a run: base and checkpoint on the same held-out rows, measured once, found again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import commit_scaled, small_config, write_corpus

from saved_checkpoint import Slice, write_shard
from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import CheckpointError, ConfigError, DataError
from scaletrain.evaluate.compare import Other, evaluate
from scaletrain.layout import RunLayout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty short conversations as JSON lines."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "talk.jsonl")


@pytest.fixture
def config(tmp_path: Path, corpus: Path) -> Config:
    return small_config(tmp_path, corpus)


def _evaluate(config: Config, **options: Any) -> Any:
    return evaluate(config, device="cpu", precision="fp32", **options)


def test_a_run_that_was_not_trained_has_only_a_before(config: Config) -> None:
    """Without a checkpoint the base model is measured, and nothing is said of after."""
    evaluation = _evaluate(config)
    assert evaluation.before is not None
    assert evaluation.after is None
    figure = evaluation.before.perplexities[0]
    index = load_index(prepare(config, use_ray=False).dataset_url)
    assert figure.tokens == index.splits["validation"].supervised_tokens
    assert figure.low < figure.value < figure.high


def test_the_checkpoints_weights_are_what_is_measured(config: Config) -> None:
    """A checkpoint equal to the base measures the same; one with other weights does not."""
    commit_scaled(config, step=1, scale=1.0)
    same = _evaluate(config)
    assert same.after.answers.nll.tolist() == same.before.answers.nll.tolist()
    commit_scaled(config, step=2, scale=0.5)
    changed = _evaluate(config)
    assert changed.after.subject.step == 2
    assert changed.after.answers.nll.tolist() != changed.before.answers.nll.tolist()


def test_an_older_step_can_be_asked_for(config: Config) -> None:
    """`step` chooses a checkpoint; one that is not there is an error that names the step."""
    commit_scaled(config, step=1, scale=1.0)
    commit_scaled(config, step=2, scale=0.5)
    assert _evaluate(config, step=1).after.subject.step == 1
    with pytest.raises(CheckpointError, match="of step 7"):
        _evaluate(config, step=7)


def test_a_measurement_is_made_once(config: Config) -> None:
    """A second call finds the first one's figures, and makes only what is new."""
    first = _evaluate(config, only="base").before
    commit_scaled(config, step=1, scale=0.5)
    again = _evaluate(config)
    assert again.before.time == first.time
    assert again.before.answers.nll.tolist() == first.answers.nll.tolist()
    names = {
        info.url.rpartition("/")[2] for info in storage.list_objects(RunLayout(config.storage.root, "count").evaluation)
    }
    assert names == {"base.json", "step-00000001.json", "curve.json"}
    assert [point.step for point in again.curve.points] == [0, 1]


def test_only_one_of_the_two_can_be_measured(config: Config) -> None:
    """`only` leaves the other model alone; a checkpoint that is asked for has to be there."""
    with pytest.raises(CheckpointError, match="no committed checkpoint"):
        _evaluate(config, only="trained")
    commit_scaled(config, step=1, scale=0.5)
    assert _evaluate(config, only="trained").before is None
    assert _evaluate(config, only="base").after is None


def test_fewer_rows_give_figures_on_fewer_documents(config: Config) -> None:
    """evaluate.max_rows bounds the work, and the figures say on how much they rest."""
    limited = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"max_rows": 1})})
    assert (
        0
        < _evaluate(limited).before.perplexities[0].conversations
        < _evaluate(config).before.perplexities[0].conversations
    )


def test_a_checkpoint_of_another_model_is_refused(config: Config) -> None:
    """Weights that the model has no place for are an error, not a guess."""
    manifest = commit_scaled(config, step=1, scale=1.0)
    run = RunLayout(config.storage.root, config.name)
    record = write_shard(
        run.checkpoint(1), "rank-00000.safetensors", [Slice("fp32", "other.weight", 0, torch.ones(4).numpy())]
    )
    changed = {**vars(manifest), "parameters": {"other.weight": (4,)}, "files": (record,)}
    checkpoint.commit(run.checkpoint(1), Manifest(**changed))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        _evaluate(config)


def test_nothing_held_out_is_the_users_mistake(tmp_path: Path, corpus: Path) -> None:
    """With data.validation=0 there is nothing to measure on, and the message says what to do."""
    data = {"corpora": [{"format": "messages", "source": str(corpus)}], "seq_len": 64, "validation": 0}
    with pytest.raises(DataError, match=r"data\.validation"):
        _evaluate(small_config(tmp_path, corpus, data=data))


def test_adapters_are_measured_on_their_base(tmp_path: Path, corpus: Path) -> None:
    """With LoRA the checkpoint holds adapters only, and they count."""
    base = prepare(small_config(tmp_path, corpus), use_ray=False).model_url
    config = small_config(tmp_path, corpus, model={"source": base, "lora": {"rank": 2}})
    commit_scaled(config, step=1, scale=1.0)
    same = _evaluate(config)
    assert same.after.answers.nll == pytest.approx(same.before.answers.nll, rel=1e-6)


def test_another_run_can_be_compared_with(config: Config, tmp_path: Path, corpus: Path) -> None:
    """Its checkpoint, or what it started from, is measured on this run's rows, and kept under its name."""
    commit_scaled(config, step=1, scale=0.5)
    older = config.model_copy(update={"name": "older"})
    commit_scaled(older, step=3, scale=0.7)
    run = RunLayout(config.storage.root, "older")
    found = _evaluate(config, against=Other(run, None))
    assert found.against == "older@3"
    assert found.before.subject.label == "against-older-step-00000003"
    assert found.before.answers.nll.tolist() != found.after.answers.nll.tolist()
    assert ("corpus", "all") in found.changes
    assert _evaluate(config, against=Other(run, 0)).before.answers.nll.tolist() == (
        _evaluate(config, only="base").before.answers.nll.tolist()
    )


def test_a_run_with_another_tokenizer_is_refused(config: Config, tmp_path: Path, corpus: Path) -> None:
    """Its model would read the rows' tokens as other words."""
    commit_scaled(config, step=1, scale=0.5)
    size = {"vocab_size": 300, "hidden_size": 32, "num_layers": 1, "num_heads": 2}
    other = small_config(tmp_path, corpus, name="other", model={"init": "random", "size": size})
    commit_scaled(other, step=2, scale=1.0)
    run = RunLayout(config.storage.root, "other")
    with pytest.raises(ConfigError, match="another tokenizer"):
        _evaluate(config, against=Other(run, None))


def test_texts_are_measured_beside_the_rows(config: Config, tmp_path: Path) -> None:
    """A file of running text has its own bits per byte; a change in it is measured anew."""
    book = tmp_path / "book.txt"
    book.write_text("After 1 comes 2. " * 40)
    section = config.evaluate.model_copy(update={"texts": (str(book),)})
    with_text = config.model_copy(update={"evaluate": section})
    (text,) = _evaluate(with_text).before.texts
    assert text.size_bytes.tolist() == [17 * 40]
    book.write_text("After 1 comes 2. ")
    assert _evaluate(with_text).before.texts[0].size_bytes.tolist() == [17]

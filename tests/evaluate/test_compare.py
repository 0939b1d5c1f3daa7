"""Evaluating a run: base and checkpoint on the same held-out rows, measured once, found again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from saved_checkpoint import Slice, write_shard
from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import CheckpointError, DataError
from scaletrain.evaluate.compare import evaluate
from scaletrain.layout import RunLayout
from scaletrain.model.build import load_model


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty short conversations as JSON lines."""
    path = tmp_path_factory.mktemp("corpus") / "talk.jsonl"
    with path.open("w") as file:
        for number in range(80):
            turns = [
                {"role": "user", "content": f"What comes after {number}?"},
                {"role": "assistant", "content": f"After {number} comes {number + 1}."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def _config(root: Path, corpus: Path, **changes: Any) -> Config:
    tree = {
        "name": "count",
        "storage": {"root": str(root)},
        "model": {"init": "random", "size": {"vocab_size": 320, "hidden_size": 32, "num_layers": 1, "num_heads": 2}},
        "data": {"corpora": [{"format": "messages", "source": str(corpus)}], "seq_len": 64, "validation": 0.25},
        "train": {"steps": 4, "global_batch_size": 4, "learning_rate": 1e-3},
        "evaluate": {"prompts": ["What comes after 3?"], "max_new_tokens": 4},
    }
    return Config.model_validate(tree | changes)


@pytest.fixture
def config(tmp_path: Path, corpus: Path) -> Config:
    return _config(tmp_path, corpus)


def _commit(config: Config, *, step: int, scale: float) -> Manifest:
    """Commit the base model with its weights scaled, as a checkpoint of one rank."""
    run = RunLayout(config.storage.root, config.name)
    inputs = prepare(config, use_ray=False)
    model_url = inputs.model_url
    model = load_model(model_url, config.model, dtype=torch.float32, attention="sdpa", seed=config.seed)
    trained = {name: p.detach() * scale for name, p in model.named_parameters() if p.requires_grad}
    slices = [Slice("fp32", name, 0, values.flatten().numpy()) for name, values in trained.items()]
    record = write_shard(run.checkpoint(step), "rank-00000.safetensors", slices)
    manifest = Manifest(
        step=step,
        samples_seen=4 * step,
        attempt=1,
        world_size=1,
        zero_stage=0,
        precision="fp32",
        dataset_url=inputs.dataset_url,
        model_url=model_url,
        ledger_hash="",
        parent_step=None,
        created="2026-01-01T00:00:00+00:00",
        parameters={name: tuple(values.shape) for name, values in trained.items()},
        scalars={"tokens": 100.0, "supervised_tokens": 50.0},
        files=(record,),
    )
    return checkpoint.commit(run.checkpoint(step), manifest)


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
    _commit(config, step=1, scale=1.0)
    same = _evaluate(config)
    assert same.after.losses.nll.tolist() == same.before.losses.nll.tolist()
    _commit(config, step=2, scale=0.5)
    changed = _evaluate(config)
    assert changed.after.subject.step == 2
    assert changed.after.losses.nll.tolist() != changed.before.losses.nll.tolist()


def test_an_older_step_can_be_asked_for(config: Config) -> None:
    """`step` chooses a checkpoint; one that is not there is an error that names the step."""
    _commit(config, step=1, scale=1.0)
    _commit(config, step=2, scale=0.5)
    assert _evaluate(config, step=1).after.subject.step == 1
    with pytest.raises(CheckpointError, match="of step 7"):
        _evaluate(config, step=7)


def test_a_measurement_is_made_once(config: Config) -> None:
    """A second call finds the first one's figures, and makes only what is new."""
    first = _evaluate(config, only="base").before
    _commit(config, step=1, scale=0.5)
    again = _evaluate(config)
    assert again.before.time == first.time
    assert again.before.losses.nll.tolist() == first.losses.nll.tolist()
    names = {
        info.url.rpartition("/")[2] for info in storage.list_objects(RunLayout(config.storage.root, "count").evaluation)
    }
    assert names == {"base.json", "step-00000001.json", "summary.md"}


def test_only_one_of_the_two_can_be_measured(config: Config) -> None:
    """`only` leaves the other model alone; a checkpoint that is asked for has to be there."""
    with pytest.raises(CheckpointError, match="no committed checkpoint"):
        _evaluate(config, only="trained")
    _commit(config, step=1, scale=0.5)
    assert _evaluate(config, only="trained").before is None
    assert _evaluate(config, only="base").after is None


def test_fewer_rows_give_figures_on_fewer_documents(config: Config) -> None:
    """evaluate.max_rows bounds the work, and the figures say on how much they rest."""
    limited = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"max_rows": 1})})
    assert 0 < _evaluate(limited).before.perplexities[0].documents < _evaluate(config).before.perplexities[0].documents


def test_a_checkpoint_of_another_model_is_refused(config: Config) -> None:
    """Weights that the model has no place for are an error, not a guess."""
    manifest = _commit(config, step=1, scale=1.0)
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
        _evaluate(_config(tmp_path, corpus, data=data))


def test_adapters_are_measured_on_their_base(tmp_path: Path, corpus: Path) -> None:
    """With LoRA the checkpoint holds adapters only, and they count."""
    base = prepare(_config(tmp_path, corpus), use_ray=False).model_url
    config = _config(tmp_path, corpus, model={"source": base, "lora": {"rank": 2}})
    _commit(config, step=1, scale=1.0)
    same = _evaluate(config)
    assert same.after.losses.nll == pytest.approx(same.before.losses.nll, rel=1e-6)

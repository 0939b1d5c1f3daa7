"""trainer: what a run was begun with is what it goes on with."""

import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from commands import run
from scaletrain import attempts, checkpoint, storage
from scaletrain.config_file import load_config
from scaletrain.errors import TrainingError
from scaletrain.layout import RunLayout
from scaletrain.train.trainer import _attempt as attempt_of
from scaletrain.train.trainer import tell_passes
from tiny import tiny_tokenizer
from workers import Prepared, make_job

CONFIG = """
name: kept
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 320, hidden_size: 16, num_layers: 1, num_heads: 2}}}}
data: {{corpora: [{{format: messages, source: "{corpus}/*.jsonl"}}], seq_len: 32, validation: 0.1}}
train: {{steps: 4, global_batch_size: 4, learning_rate: 1.0e-3, device: cpu}}
checkpoint: {{every_steps: 2}}
track: {{tensorboard: false}}
"""


def _write_corpus(path: Path, *, first: int) -> None:
    turns = [
        [{"role": "user", "content": f"What comes after {n}?"}, {"role": "assistant", "content": str(n + 1)}]
        for n in range(first, first + 40)
    ]
    path.write_bytes(b"".join(orjson.dumps({"messages": each}) + b"\n" for each in turns))


def test_a_run_keeps_its_dataset_when_its_corpora_change(tmp_path: Path) -> None:
    """It goes on with the rows it began with; without them it ends, rather than go on with others."""
    corpus, root, config = tmp_path / "corpus", tmp_path / "bucket", tmp_path / "kept.yaml"
    corpus.mkdir()
    _write_corpus(corpus / "old.jsonl", first=0)
    config.write_text(CONFIG.format(root=root, corpus=corpus))
    run("train", str(config), "--local", "debug.stop_after=2")
    (dataset,) = (root / "data").iterdir()
    _write_corpus(corpus / "new.jsonl", first=100)
    run("train", str(config), "--local", "debug.stop_after=3")
    assert list((root / "data").iterdir()) == [dataset]
    newest = checkpoint.latest(RunLayout(str(root), "kept"))
    assert newest is not None and (newest.step, newest.dataset_url) == (3, str(dataset))
    shutil.rmtree(dataset)
    told = run("train", str(config), "--local", exit_code=2)
    assert f"was trained with the dataset {dataset}, which is gone" in told


def test_a_model_that_no_cpu_can_train_is_refused_before_its_data_is_prepared(tmp_path: Path) -> None:
    """Gemma 2 has soft caps, which SDPA does not compute: said at once, with what to do, and nothing was prepared."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8, "vocab_size": 320}
    settings = Gemma2Config(num_attention_heads=2, num_key_value_heads=1, **sizes)
    Gemma2ForCausalLM(settings).save_pretrained(tmp_path / "gemma")
    tiny_tokenizer().save_pretrained(tmp_path / "gemma")
    corpus, root, config = tmp_path / "corpus", tmp_path / "bucket", tmp_path / "kept.yaml"
    corpus.mkdir()
    _write_corpus(corpus / "a.jsonl", first=0)
    text = CONFIG.format(root=root, corpus=corpus)
    config.write_text(re.sub("^model: .*$", f"model: {{source: {tmp_path}/gemma}}", text, flags=re.M))
    told = run("train", str(config), "--local", exit_code=2)
    assert "type gemma2 (soft-capped attention) cannot be trained with SDPA" in told
    assert "train it on a CUDA GPU" in told
    assert not (root / "data").exists()


def test_too_little_data_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A warning names the passes and the remedy; a few passes are only said."""
    config = tmp_path / "kept.yaml"
    config.write_text(CONFIG.format(root=tmp_path, corpus=tmp_path))
    loaded = load_config(str(config), ("train.global_batch_size=64",))
    with caplog.at_level(logging.INFO, logger="scaletrain"):
        tell_passes(loaded, rows=50, total_steps=1000)
        tell_passes(loaded, rows=640, total_steps=30)
    (many, few) = caplog.records
    assert many.levelname == "WARNING" and few.levelname == "INFO"
    assert many.getMessage().startswith("1,000 steps of 64 rows: 1,280 passes over 50 rows")
    assert "train.epochs=3" in many.getMessage()
    assert few.getMessage() == "30 steps of 64 rows: 3 passes over 640 rows"


def test_a_driver_that_was_replaced_does_not_take_the_run_back(prepared: Prepared) -> None:
    """It stood still while another trained the run; its workers are lost, and it wants the next attempt."""
    job = make_job(prepared, "replaced")
    with attempt_of(replace(job, attempt=0), seen=0) as first:
        assert attempts.claim(job.run, after=attempts.read_attempts(job.run).newest) == 2
    with (
        pytest.raises(TrainingError, match="replaced is being trained at this moment: attempt 2"),
        attempt_of(first, seen=0),
    ):
        pass
    assert attempts.read_attempts(job.run).claimed == (1, 2)


def test_a_driver_whose_run_was_removed_does_not_go_on_in_the_new_one(prepared: Prepared) -> None:
    """The next number is free there, and is not taken."""
    job = make_job(prepared, "removed")
    with attempt_of(replace(job, attempt=0), seen=0) as first:
        storage.remove(job.run.url)
        attempts.claim(job.run)
    with pytest.raises(TrainingError, match="its claim is that of process"), attempt_of(first, seen=0):
        pass
    assert attempts.read_attempts(job.run).claimed == (1,)

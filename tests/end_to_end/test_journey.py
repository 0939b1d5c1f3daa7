"""The whole way on a real bucket server: prepare, train, resume, evaluate, export, chat."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from commands import run, write_tiny
from scaletrain import attempts, checkpoint, storage
from scaletrain.cli import app
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journey")


def test_the_whole_journey_on_s3(folder: Path, s3_bucket: str) -> None:
    """Every step of the way works on s3://, resumes there, and leaves the documented files."""
    root = storage.join(s3_bucket, "team")
    config, layout = write_tiny(folder, root=root), RunLayout(root, "tiny")
    dataset = run("prepare", config).strip()
    assert storage.exists(storage.join(dataset, "index.json"))
    assert "is at step 6 of 16" in run("train", config, "debug.stop_after=6")
    assert "is at step 16 of 16" in run("train", config)
    assert [r["step"] for r in read_records(layout.metrics)] == list(range(1, 17))
    newest = checkpoint.latest(layout)
    assert newest is not None
    assert (newest.step, newest.attempt, newest.world_size) == (16, 2, 2)
    proof = orjson.loads(run("verify", config, "--json"))
    assert (proof["steps"], proof["problems"], proof["checkpoints"][-1]) == (16, [], 16)
    found = orjson.loads(run("evaluate", config, "--json"))
    before, after = (found[when]["perplexities"][-1]["perplexity"] for when in ("before", "after"))
    assert after < before
    exported = storage.join(root, "exported")
    assert run("export", config, exported).strip() == exported
    answer = run("chat", exported, "--prompt", "Hello", "--temperature", "0", "--max-new-tokens", "8")
    assert answer == run("chat", config, "--prompt", "Hello", "--temperature", "0", "--max-new-tokens", "8")
    assert orjson.loads(run("runs", root, "--json"))[0]["step"] == 16
    shown = orjson.loads(run("show", config, "--json"))
    assert shown["attempts"] == 2
    parts = shown["time"]["parts"]
    assert sum(parts.values()) == pytest.approx(shown["time"]["wall_s"], rel=0.01)
    assert min(parts[name] for name in ("start_up_s", "productive_s", "shut_down_s", "idle_s")) > 0
    assert (parts["lost_work_s"], parts["recovery_s"]) == (0, 0)
    assert f"goodput {shown['time']['goodput']:.1%}" in run("show", config)


def test_an_exported_folder_answers_in_plain_transformers_as_chat_does(folder: Path) -> None:
    """Nothing of scaletrain is needed to use the model, and the greedy answer is the same."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, dest = write_tiny(folder, root=str(folder / "bucket")), str(folder / "exported")
    run("train", config, "--local", "train.steps=8", "train.schedule=constant")
    run("export", config, dest)
    ours = run("chat", dest, "--prompt", "Hello", "--temperature", "0", "--max-new-tokens", "12").strip()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(dest), AutoTokenizer.from_pretrained(dest)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        tokens = model.generate(**prompt, do_sample=False, max_new_tokens=12)
    theirs = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert ours == theirs


def test_prepared_data_and_finished_runs_are_reused(folder: Path) -> None:
    """The same command again does nothing, and says so."""
    config = write_tiny(folder, root=str(folder / "reused"))
    first = run("prepare", config, "--local")
    assert run("prepare", config, "--local") == first
    run("train", config, "--local", "train.steps=2")
    assert "is at step 2 of 2" in run("train", config, "--local", "train.steps=2")
    assert attempts.read_attempts(RunLayout(str(folder / "reused"), "tiny")).claimed == (1,)


def test_bad_input_ends_with_exit_code_2_and_one_clear_message(folder: Path) -> None:
    """What the user must mend is named; nothing is half done."""
    config = write_tiny(folder, root=str(folder / "bad"))
    cases = {
        "train.global_batch_sise=3": "global_batch_size",
        "train.device=cuda": "there is no CUDA GPU here",
        "scaling.gpus_per_worker=1": "gpus_per_worker",
        "data.corpora.0.format=mesages": "did you mean messages",
        "data.corpora.0.source=/nowhere/*.yml": "/nowhere",
        "storage.root=s4://bucket": "s4://",
    }
    for change, expected in cases.items():
        refused = CliRunner().invoke(app, ["train", config, "--local", change])
        assert refused.exit_code == 2, (change, refused.output)
        assert expected in refused.stderr, (change, refused.stderr)
    assert not (folder / "bad").exists()
    run("train", config, "--local", "debug.stop_after=1")
    errors = run("train", config, "--local", "train.learning_rate=0.5", exit_code=2)
    assert "train.learning_rate" in errors

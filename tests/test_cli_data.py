"""cli_data: `prepare --explain` and `data show | check | diff`, by a dataset's URL or a run, as text and as JSON."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from scaletrain import checkpoint, storage
from scaletrain.cli import app
from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.config_model import ModelSection
from scaletrain.data.prepare import Prepared, prepare
from scaletrain.layout import RunLayout
from tiny import commit, tiny_config
from varied import varied_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where corpora and bucket of these tests lie."""
    return tmp_path_factory.mktemp("varied")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    """The varied dataset."""
    return prepare(varied_config(folder), use_ray=False)


def call(*arguments: str, exit_code: int = 0) -> str:
    """Run a command in this process; returns its stdout, or all of its output where it is to fail."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == exit_code, done.output
    return done.stdout if exit_code == 0 else done.output


def test_rows_are_shown_by_url_and_by_run(prepared: Prepared, folder: Path) -> None:
    """A run stands for the dataset and the model of its newest commit."""
    by_url = call("data", "show", f"{prepared.dataset_url}/", "--n", "2")
    assert "train sample 0" in by_url and "train sample 1" in by_url and "<|im_start|>user" in by_url
    run = RunLayout(str(folder / "bucket"), "mine")
    storage.write_text(run.config, dump_config(tiny_config(run.root, varied_config(folder).model, name="mine")))
    assert "has not committed a step yet" in call("data", "show", run.url, exit_code=2)
    manifest = commit(run, step=1, model_url=prepared.model_url, trained={})
    storage.remove(storage.join(run.checkpoint(1), "manifest.json"))
    checkpoint.commit(run.checkpoint(1), replace(manifest, dataset_url=prepared.dataset_url))
    assert call("data", "show", run.url, "--n", "2") == by_url


def test_rows_are_shown_by_a_configuration_that_was_only_prepared(prepared: Prepared, folder: Path) -> None:
    """What `prepare` made can be looked at by the same CONFIG before its run has begun; else the URL is asked for."""
    config = varied_config(folder).model_copy(update={"name": "only-prepared"})
    path = folder / "only-prepared.yaml"
    path.write_text(dump_config(config))
    refused = call("data", "show", str(path), exit_code=2)
    assert f"the URL that `scaletrain prepare {path}` prints" in " ".join(refused.split())
    begins_there = config.model_copy(update={"model": ModelSection(source=prepared.model_url)})
    assert prepare(begins_there, use_ray=False).dataset_url == prepared.dataset_url
    path.write_text(dump_config(begins_there))
    assert call("data", "show", str(path), "--n", "2") == call("data", "show", prepared.dataset_url, "--n", "2")


def test_a_shown_row_as_json(prepared: Prepared) -> None:
    """The spans of its documents, with what is learned from."""
    arguments = ("--split", "validation", "--sample", "1", "--json")
    (row,) = orjson.loads(call("data", "show", prepared.dataset_url, *arguments))
    assert (row["split"], row["sample_id"]) == ("validation", 1)
    assert {span["supervised"] for span in row["spans"]} == {True, False}


def test_a_sound_dataset_ends_with_0_and_a_damaged_one_with_1(prepared: Prepared, tmp_path: Path) -> None:
    """And with 2 where there is none; the problems are on stdout, as the result."""
    assert "whole" in call("data", "check", prepared.dataset_url)
    url = str(tmp_path / "copy")
    storage.download_folder(prepared.dataset_url, Path(url))
    storage.remove(storage.join(url, "shard-00000.parquet"))
    assert "shard-00000.parquet: is missing" in call("data", "check", url, exit_code=1)
    found = orjson.loads(CliRunner().invoke(app, ["data", "check", url, "--json"]).stdout)
    assert found["problems"] == ["shard-00000.parquet: is missing"]
    assert "neither a dataset" in call("data", "check", str(tmp_path / "nowhere"), exit_code=2)


def test_two_datasets_are_compared(prepared: Prepared, folder: Path) -> None:
    """As text and as JSON."""
    other = prepare(varied_config(folder, min_chars=60), use_ray=False).dataset_url
    shown = call("data", "diff", prepared.dataset_url, other)
    assert "min_chars" in shown and "went with B" in shown
    found = orjson.loads(call("data", "diff", prepared.dataset_url, other, "--json"))
    assert found["went"]["reasons"] == {"too_short": found["went"]["conversations"]}


def test_what_a_dump_holds_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences in the keys of its rows are shown as pictures in the error that quotes them."""
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"\\u001b]0;taken over\\u0007": 1, "\\u009b31m": 2}\n')
    settings = varied_config(tmp_path).model_dump()
    settings["data"] |= {"corpora": [{"format": "messages", "source": str(corpus)}]}
    (tmp_path / "run.yaml").write_text(dump_config(Config.model_validate(settings)))
    told = call("prepare", str(tmp_path / "run.yaml"), "--local", "data.max_bad_rows=0", exit_code=2)
    assert "only ␛]0;taken over␇, \ufffd31m" in told


def test_a_conversation_is_explained(prepared: Prepared, folder: Path) -> None:
    """Its life on stdout; an id that is not there is the user's mistake."""
    path = folder / "run.yaml"
    path.write_text(dump_config(varied_config(folder)))
    told = call("prepare", str(path), "--local", "--explain", "t3")
    assert "dump.jsonl:1" in told and "fix_unicode" in told and "samples" in told
    assert "t99: no such row" in call("prepare", str(path), "--local", "--explain", "t99", exit_code=2)
    assert call("prepare", str(path), "--local") == f"{prepared.dataset_url}\n"


@pytest.mark.parametrize("command", ["show", "check", "diff"])
def test_every_help_has_an_example(command: str) -> None:
    """What to type can be copied from it."""
    assert f"scaletrain data {command} bucket/data/" in " ".join(call("data", command, "--help").split())

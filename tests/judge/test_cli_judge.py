"""`scaletrain judge`: from a file of answers over votes to a result and preferences, and what is refused."""

from pathlib import Path

import orjson
import pytest
from jury import honest, made_up_items, vote_all
from typer.testing import CliRunner

from scaletrain import storage
from scaletrain.cli import app
from scaletrain.judge.items import write_items
from scaletrain.judge.vote_store import VoteStore
from tiny import tiny_model_folder

LINE = {
    "time": "2026-01-01",
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "answer": "A",
    "vote": "up",
}


def call(*arguments: str, exit_code: int = 0) -> str:
    """Run a command in this process; returns its stdout, or all of its output where it is to fail."""
    done = CliRunner().invoke(app, ["judge", *arguments])
    assert done.exit_code == exit_code, done.output
    return done.stdout if exit_code == 0 else done.output


@pytest.fixture
def judged(tmp_path: Path) -> str:
    """A file of items with the votes of two judges beside it."""
    path = str(tmp_path / "judging.jsonl")
    items = made_up_items(["base", "trained"], 50)
    write_items(path, items.items)
    store = VoteStore(f"{path}.votes.sqlite")
    judges = {name: honest({"base": -1, "trained": 1}) for name in ("Ana", "Ben")}
    for vote in vote_all(items, judges):
        store.save(vote)
    return path


def test_the_result_is_told_in_four_ways(judged: str, tmp_path: Path) -> None:
    """In the terminal, as JSON, as Markdown and as a page, the last two at any URL."""
    html, table = str(tmp_path / "result.html"), str(tmp_path / "result.md")
    told = call("result", judged, "--html", html, "--markdown", table)
    assert "Decided: trained is better than base." in told
    assert "Decided: trained" in storage.read_text(table)
    assert storage.read_text(html).startswith("<!doctype html>")
    record = orjson.loads(call("result", judged, "--json"))
    assert record["decisions"][0]["winner"] == "trained"
    alone = orjson.loads(call("result", judged, "--json", "--leave-out", "Ben"))
    assert alone["votes"] == 50 and record["votes"] == 100


def test_votes_and_preferences_are_written(judged: str, tmp_path: Path) -> None:
    """As JSON lines; every preference is one that the judges have."""
    told = call("export", judged, str(tmp_path / "preferences.jsonl"))
    preferences = [orjson.loads(line) for line in (tmp_path / "preferences.jsonl").read_bytes().splitlines()]
    assert f"{len(preferences)} preferences" in told
    assert all(each["votes"]["chosen"] > each["votes"]["rejected"] for each in preferences)
    call("export", judged, str(tmp_path / "votes.jsonl"), "--as", "votes", "--leave-out", "Ana")
    votes = [orjson.loads(line) for line in (tmp_path / "votes.jsonl").read_bytes().splitlines()]
    assert len(votes) == 50 and {vote["judge"] for vote in votes} == {"Ben"}


def test_items_and_what_is_written_may_be_in_a_bucket(judged: str) -> None:
    """The database stays on this machine and is named."""
    url, votes = "memory://judging/judging.jsonl", ("--votes", f"{judged}.votes.sqlite")
    storage.write_bytes(url, Path(judged).read_bytes())
    assert "a database has to be somewhere" in call("result", url, exit_code=2)
    call("result", url, *votes, "--html", "memory://judging/result.html")
    assert storage.read_text("memory://judging/result.html").startswith("<!doctype html>")
    call("export", url, "memory://judging/votes.jsonl", "--as", "votes", *votes)
    assert len(storage.read_bytes("memory://judging/votes.jsonl").splitlines()) == 100
    storage.remove("memory://judging")


def test_thumbs_of_a_served_model_are_taken_in_once(judged: str, tmp_path: Path) -> None:
    """They stand in the result beside the votes."""
    path = tmp_path / "feedback.jsonl"
    path.write_bytes(b"".join(orjson.dumps({**LINE, "vote": vote}) + b"\n" for vote in ("up", "down")))
    assert "2 thumbs, 2 of them new" in call("import", judged, str(path))
    assert "2 thumbs, 0 of them new" in call("import", judged, str(path))
    assert orjson.loads(call("result", judged, "--json"))["thumbs"][0]["up"] == 1
    path.write_bytes(b'{"time": 3}\n' + orjson.dumps({**LINE, "vote": "maybe"}))
    told = call("import", judged, str(path), exit_code=2)
    assert '"time" has to be a text' in told and '"vote" has to be "up" or "down"' in told


def test_models_are_asked_and_written(tmp_path: Path) -> None:
    """prepare with two models and a file of prompts."""
    (tmp_path / "prompts.txt").write_text("Hello!\nHow are you?\n")
    folders = [f"{name}={tiny_model_folder(tmp_path / name, seed=seed)}" for name, seed in (("a", 1), ("b", 2))]
    out = str(tmp_path / "judging.jsonl")
    arguments = ("--prompts", str(tmp_path / "prompts.txt"), "--out", out, "--max-new-tokens", "5", "--device", "cpu")
    assert "2 prompts" in call("prepare", *folders, *arguments)
    assert [set(orjson.loads(line)["answers"]) for line in Path(out).read_bytes().splitlines()] == [{"a", "b"}] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare"], "one of these"),
        (["prepare", "a", "b"], "models need --prompts FILE"),
        (["prepare", "a.json", "b.json", "--prompts", "x"], "the answers of an evaluation are given"),
        (["prepare", "a", "b", "--prompts", "x", "--device", "tpu"], "--device=tpu"),
        (["prepare", "--from-run", "no-run"], "scaletrain evaluate"),
        (["serve", "nowhere.jsonl"], "nowhere.jsonl"),
        (["serve", "nowhere.jsonl", "--host", "0.0.0.0"], "--judge NAME"),
        (["serve", "nowhere.jsonl", "--judge", "<x>", "--judge", " "], "2 problems"),
        (["serve", "nowhere.jsonl", "--temperature", "1", "--key-from", "X"], "--temperature, --key-from: only with"),
        (["result", "nowhere.jsonl"], "nowhere.jsonl"),
        (["export", "x", "y", "--as", "csv"], "preferences or votes"),
    ],
)
def test_a_mistake_ends_with_2_and_says_what_to_do(arguments: list[str], words: str) -> None:
    """Before anything is made."""
    assert words in " ".join(call(*arguments, exit_code=2).split())


def test_a_result_needs_votes(tmp_path: Path) -> None:
    """And makes no database; a judge to leave out has to be one."""
    path = tmp_path / "judging.jsonl"
    write_items(str(path), made_up_items(["a", "b"], 2).items)
    assert "there are no votes yet" in call("result", str(path), exit_code=2)
    assert list(tmp_path.iterdir()) == [path]
    VoteStore(f"{path}.votes.sqlite")
    assert "has not voted" in call("result", str(path), "--leave-out", "Ana", exit_code=2)


@pytest.mark.parametrize("command", ["prepare", "serve", "result", "export", "import"])
def test_every_help_shows_what_to_type(command: str) -> None:
    """An example that can be copied."""
    assert f"scaletrain judge {command} " in " ".join(call(command, "--help").split())

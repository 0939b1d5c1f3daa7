"""Answers taken live: two servers answer a judge's own question side by side, and it is voted on."""

import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient
from streaming_models import Models
from typer.testing import CliRunner

from commands import wait_for
from scaletrain.cli import app
from scaletrain.judge.app import build_app
from scaletrain.judge.contenders import Contender
from scaletrain.judge.dealing import Dealer
from scaletrain.judge.items import Items
from scaletrain.judge.judging import Judging
from scaletrain.judge.live import LiveSetting
from scaletrain.judge.vote_store import VoteStore

ANA = {"x-judge": "Ana"}


def judging_of(folder: Path, models: Models, *names: str) -> Judging:
    contenders = tuple(Contender(f"hidden-{place}", f"{models.url}#{name}") for place, name in enumerate(names))
    setting = LiveSetting(contenders, 0.3, 9, "Be brief.", "secret-key")
    store = VoteStore(str(folder / "judging.jsonl.votes.sqlite"))
    return Judging(Items(()), store, Dealer([], overlap=0, seed=0), live=setting)


def ask(judging: Judging, question: object = "Who are you?") -> Any:
    client = TestClient(build_app(judging, allowed_hosts=("testserver",)))
    return client.post("/api/live", json={"question": question}, headers=ANA)


def lines_of(answer: Any) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in answer.text.split("\n") if line]


def test_both_answers_come_in_pieces_and_are_voted_on(tmp_path: Path, models: Models) -> None:
    """As two models gave them; the vote knows who stood where, also after a restart of the server."""
    judging = judging_of(tmp_path, models, "red", "blue")
    answer = ask(judging, "Who are\u2028you?")  # the end of a line to Unicode, and none to a stream of events
    *pieces, last = lines_of(answer)
    texts = {side: "".join(piece["text"] for piece in pieces if piece["side"] == side) for side in ("left", "right")}
    assert sorted(texts.values()) == ["I am blue: Who are\u2028you?", "I am red: Who are\u2028you?"]
    assert len(pieces) == 8 and "hidden" not in answer.text and models.url not in answer.text
    again = TestClient(build_app(judging_of(tmp_path, models, "red", "blue"), allowed_hosts=("testserver",)))
    shown = again.get(f"/api/pairs/{last['name']}", headers=ANA).json()["pair"]
    assert (shown["left"], shown["right"]) == (texts["left"], texts["right"])
    told = again.post("/api/votes", json={"pair": last["name"], "choice": "left"}, headers=ANA).json()
    assert (told["may_ask"], told["progress"]["mine"]) == (True, 1)
    (vote,) = judging.store.votes()
    assert vote.winner == ("hidden-0" if "red" in texts["left"] else "hidden-1")


def test_models_are_asked_as_they_are_set(tmp_path: Path, models: Models) -> None:
    """System prompt, temperature, length and key; and each of three models gets its turn on each side."""
    judging = judging_of(tmp_path, models, "red", "blue", "green")
    for number in range(12):
        assert lines_of(ask(judging, f"{number}?"))[-1]["name"]
    first = models.asked[0]
    assert [message["content"] for message in first["messages"]] == ["Be brief.", "0?"]
    assert (first["temperature"], first["max_tokens"], first["stream"]) == (0.3, 9, True)
    assert first["key"] == "Bearer secret-key"
    assert {each["model"] for each in models.asked} == {"red", "blue", "green"}
    assert len({each.left for each in judging.store.live()}) > 1


@pytest.mark.parametrize("bad", ["broken", "unknown"])
def test_half_an_answer_is_not_judged(tmp_path: Path, models: Models, bad: str) -> None:
    """The judge is told, but nothing of the models; nothing is kept, and one may ask again."""
    judging = judging_of(tmp_path, models, "red", bad)
    for _ in range(2):
        answer = ask(judging)
        assert "error" in lines_of(answer)[-1]
        assert models.url not in answer.text and "hidden" not in answer.text
    assert judging.store.live() == []
    assert judging.asking == set()


def test_equal_answers_are_nothing_to_choose_from(tmp_path: Path, models: Models) -> None:
    """The page is told so."""
    judging = judging_of(tmp_path, models, "same", "same")
    assert lines_of(ask(judging))[-1] == {"name": None}
    assert judging.store.live() == []


@pytest.mark.parametrize("question", ["", "  ", None, 3, "x" * 8001])
def test_a_question_is_a_text(tmp_path: Path, models: Models, question: object) -> None:
    """Not nothing, and not a book."""
    assert ask(judging_of(tmp_path, models, "red", "blue"), question).status_code == 400
    assert models.asked == []


def test_one_question_of_a_judge_at_a_time(tmp_path: Path, models: Models) -> None:
    """Nobody takes the models for themselves; without --live nothing is asked at all."""
    judging = judging_of(tmp_path, models, "red", "blue")
    judging.asking.add("Ana")
    assert ask(judging).status_code == 429
    silent = Judging(Items(()), judging.store, judging.dealer)
    assert ask(silent).status_code == 404


def test_what_was_asked_live_is_in_the_result(tmp_path: Path, models: Models) -> None:
    """Without any file of items: the database has the questions too."""
    judging = judging_of(tmp_path, models, "red", "blue")
    client = TestClient(build_app(judging, allowed_hosts=("testserver",)))
    for number in range(3):
        name = lines_of(ask(judging, f"{number}?"))[-1]["name"]
        client.post("/api/votes", json={"pair": name, "choice": "left"}, headers=ANA)
    path = str(tmp_path / "judging.jsonl")
    done = CliRunner().invoke(app, ["judge", "result", path, "--json"])
    assert done.exit_code == 0, done.output
    record = orjson.loads(done.stdout)
    assert (record["votes"], record["models"]) == (3, ["hidden-0", "hidden-1"])
    done = CliRunner().invoke(app, ["judge", "export", path, str(tmp_path / "preferences.jsonl")])
    assert "3 preferences" in done.stdout


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["a=http://h/v1#m"], "two or more"),
        (["a=http://h/v1#m", "a=http://h/v1#n"], "a: is there twice"),
        (["a=http://h/v1#m", "b=my-run"], "my-run: is no address"),
        (["a=http://h/v1#m", "b=http://h/v1"], "which model of the server"),
    ],
)
def test_models_that_cannot_be_asked_are_refused(tmp_path: Path, named: list[str], words: str) -> None:
    """Before the page is served."""
    options = [part for each in named for part in ("--live", each)]
    done = CliRunner().invoke(app, ["judge", "serve", str(tmp_path / "x.jsonl"), *options])
    assert (done.exit_code, words in done.output) == (2, True), done.output


def test_a_reader_that_goes_away_stops_both_models(tmp_path: Path, models: Models) -> None:
    """In a real server: the connections to the models are closed soon after the one of the page."""
    import httpx
    import uvicorn

    judging = judging_of(tmp_path, models, "endless", "endless")
    config = uvicorn.Config(build_app(judging, allowed_hosts=("*",)), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the server's start")
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/api/live"
        with httpx.stream("POST", url, json={"question": "Go on?"}, headers=ANA) as response:
            for _, _line in zip(range(30), response.iter_lines(), strict=False):
                pass
        wait_for(lambda: models.left_alone == 2, "both models stopped", limit_s=20)
        wait_for(lambda: not judging.asking, "the judge may ask again", limit_s=20)
    finally:
        server.should_exit = True
        thread.join()

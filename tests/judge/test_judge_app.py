"""judge.app: what the server answers, and what it never tells."""

from pathlib import Path
from typing import Any

import pytest
from jury import made_up_items
from starlette.testclient import TestClient

from scaletrain.errors import ConfigError
from scaletrain.judge.app import build_app
from scaletrain.judge.dealing import Dealer
from scaletrain.judge.items import Item, Items
from scaletrain.judge.judging import Judging
from scaletrain.judge.names import judge_token
from scaletrain.judge.server import check_address, links
from scaletrain.judge.vote_store import VoteStore

ANA = {"x-judge": "Ana%20M%C3%BCller"}
NAMES = ("secret-base-7b", "secret-trained-7b")


def judging_of(folder: Path, *, items: Items | None = None, judges: tuple[str, ...] = ()) -> Judging:
    items = items or made_up_items(["x", "y"], 4)
    dealer = Dealer(list(items.pairs), overlap=0, seed=0)
    return Judging(items, VoteStore(str(folder / "votes.sqlite")), dealer, judges)


def client_of(judging: Judging) -> TestClient:
    return TestClient(build_app(judging, allowed_hosts=("testserver",)))


def vote_for(shown: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"pair": shown["pair"]["name"], "choice": "left", **changes}


def test_a_judge_votes_until_nothing_is_left(tmp_path: Path) -> None:
    """Each vote is kept with what was shown where, and brings the next pair; in the end there is none."""
    judging = judging_of(tmp_path)
    client = client_of(judging)
    shown = client.get("/api/next", headers=ANA).json()
    seen = []
    while shown["pair"]:
        seen.append(shown["pair"])
        body = vote_for(shown, reasons=["helpful"], note=" good ", seconds=2.5)
        shown = client.post("/api/votes", json=body, headers=ANA).json()
    assert shown["progress"] == {"wanted": 4, "done": 4, "mine": 4}
    votes = judging.store.votes()
    assert len(votes) == len(seen) == 4
    for vote, pair in zip(votes, seen, strict=True):
        answers = judging.items.pairs[vote.pair].item.answers
        assert (answers[vote.left], answers[vote.right]) == (pair["left"], pair["right"])
        assert (vote.judge, vote.choice, vote.reasons, vote.note) == ("Ana Müller", "left", ("helpful",), "good")


def test_models_names_never_reach_the_browser(tmp_path: Path) -> None:
    """Not in the page, not in any answer or header; nor does a pair's name give a model away."""
    prompt = ({"role": "user", "content": "Hi"},)
    items = Items(tuple(Item(prompt, {NAMES[0]: f"a{n}", NAMES[1]: f"b{n}"}) for n in range(3)))
    judging = judging_of(tmp_path, items=items)
    client = client_of(judging)
    told = []
    for path in ("/", "/judge.js", "/judge.css", "/api/setting", "/health"):
        told.append(client.get(path))
    told.append(client.get("/api/next", headers=ANA))
    while (shown := told[-1].json())["pair"]:
        told.append(client.get(f"/api/pairs/{shown['pair']['name']}", headers=ANA))
        told.append(client.post("/api/votes", json=vote_for(shown), headers=ANA))
    told.append(client.post("/api/votes", json={"pair": "x", "choice": "y"}, headers=ANA))
    for answer in told:
        text = answer.text + str(dict(answer.headers))
        assert not any(name in text for name in NAMES)
        assert not any(pair in text for pair in items.pairs)  # a name that could be computed from a guess


def test_a_judge_sees_each_answer_on_both_sides(tmp_path: Path) -> None:
    """Over many pairs, the same model is about as often left as right."""
    judging = judging_of(tmp_path, items=made_up_items(["x", "y"], 200))
    lefts = [judging._sides("Ana", pair)[0] for pair in judging.items.pairs.values()]
    assert 70 < lefts.count("x") < 130


def test_an_earlier_pair_comes_back_with_its_vote(tmp_path: Path) -> None:
    """As it was shown; a second vote replaces the first."""
    judging = judging_of(tmp_path)
    client = client_of(judging)
    shown = client.get("/api/next", headers=ANA).json()
    client.post("/api/votes", json=vote_for(shown, choice="tie", note="so so"), headers=ANA)
    again = client.get(f"/api/pairs/{shown['pair']['name']}", headers=ANA).json()
    assert again["pair"] == shown["pair"]
    assert again["vote"] == {"choice": "tie", "reasons": [], "note": "so so"}
    after = client.post("/api/votes", json=vote_for(shown, choice="right"), headers=ANA).json()
    assert after["progress"]["mine"] == 1
    (vote,) = judging.store.votes()
    assert (vote.choice, vote.revision) == ("right", 1)


def test_two_tabs_of_a_judge_do_not_vote_twice(tmp_path: Path) -> None:
    """Both show the same pair; a vote in each is one vote, the last one, and both go on with the same next pair."""
    judging = judging_of(tmp_path)
    client = client_of(judging)
    first, second = (client.get("/api/next", headers=ANA).json() for _ in range(2))
    assert first["pair"] == second["pair"]
    after_first = client.post("/api/votes", json=vote_for(first, choice="left"), headers=ANA).json()
    after_second = client.post("/api/votes", json=vote_for(second, choice="both_bad"), headers=ANA).json()
    assert after_first["pair"] == after_second["pair"]
    assert [vote.choice for vote in judging.store.votes()] == ["both_bad"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "JSON object"),
        (b"{}", 400, '"pair" has to be the name of a pair; "choice" has to be one of left, tie, right, both_bad'),
        (b'{"pair": "x", "choice": ["left"]}', 400, '"choice"'),
        (b'{"pair": "unknown", "choice": "left"}', 404, "load the page again"),
        (b'{"pair": "x", "choice": "left", "reasons": ["rude"], "note": 3, "seconds": true}', 400, '"reasons"'),
        (b'{"pair": "x", "choice": "left", "reasons": [["helpful"]]}', 400, '"reasons"'),
        (b'{"pair": "x", "choice": "left", "note": "' + b"x" * 5000 + b'"}', 400, "at most 4000"),
        (b'"' + b"x" * 100_000 + b'"', 413, "64 KiB"),
    ],
)
def test_a_wrong_vote_is_refused_and_nothing_kept(tmp_path: Path, body: bytes, status: int, words: str) -> None:
    """With all that is wrong."""
    judging = judging_of(tmp_path)
    answer = client_of(judging).post("/api/votes", content=body, headers={**ANA, "content-type": "application/json"})
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert judging.store.votes() == []


@pytest.mark.parametrize("name", ["", "%20", "a" * 41, "<b>", "Ana%0aBen"])
def test_a_judge_has_to_give_a_name(tmp_path: Path, name: str) -> None:
    """One that can stand in a table."""
    answer = client_of(judging_of(tmp_path)).get("/api/next", headers={"x-judge": name})
    assert answer.status_code == 401
    assert "name" in answer.json()["error"]


def test_with_links_only_their_tokens_count(tmp_path: Path) -> None:
    """A name alone, another judge's name or a guess opens nothing; the token says who votes."""
    judging = judging_of(tmp_path, judges=("Ana", "Ben"))
    client = client_of(judging)
    link = links(judging, "http://host/")[1]
    token = link.rpartition(":")[2]
    assert link == f"Ben: http://host/#Ben:{token}"
    assert client.get("/api/setting").json()["needs_link"] is True
    for headers in ({"x-judge": "Ana"}, {"authorization": "Bearer "}, {"authorization": "Bearer x\u00e9".encode()}):
        assert client.get("/api/next", headers=headers).status_code == 401  # type: ignore[arg-type]
    stranger = judge_token(judging.store.secret, "Cleo")
    assert client.get("/api/next", headers={"authorization": f"Bearer {stranger}"}).status_code == 401
    shown = client.get("/api/next", headers={"authorization": f"Bearer {token}", "x-judge": "Ana"}).json()
    assert shown["judge"] == "Ben"


def test_no_other_web_page_can_vote(tmp_path: Path) -> None:
    """A form cannot send JSON, and a name that leads here (DNS rebinding) is refused."""
    judging = judging_of(tmp_path)
    client = client_of(judging)
    shown = client.get("/api/next", headers=ANA).json()
    assert client.post("/api/votes", data=vote_for(shown), headers=ANA).status_code == 415
    assert client.get("/api/next", headers={**ANA, "host": "evil.example"}).status_code == 400
    assert judging.store.votes() == []


def test_the_page_may_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    """A strict policy, on the page and on everything else; no address but its own stands in it."""
    client = client_of(judging_of(tmp_path))
    for path in ("/", "/judge.js", "/judge.css", "/api/setting"):
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text and "https://" not in answer.text
    assert "innerHTML" not in client.get("/judge.js").text


def test_a_database_that_is_gone_is_said_and_the_vote_can_be_sent_again(tmp_path: Path) -> None:
    """503 until it is back; then the same vote goes in."""
    judging = judging_of(tmp_path)
    client = client_of(judging)
    shown = client.get("/api/next", headers=ANA).json()
    path = tmp_path / "votes.sqlite"
    path.rename(tmp_path / "away")
    answer = client.post("/api/votes", json=vote_for(shown), headers=ANA)
    assert answer.status_code == 503 and "nothing that you chose is lost" in answer.json()["error"]
    assert str(tmp_path) not in answer.text
    assert client.get("/health").status_code == 503
    (tmp_path / "away").rename(path)
    assert client.post("/api/votes", json=vote_for(shown), headers=ANA).status_code == 200
    assert len(judging.store.votes()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "example.org", "::"])
def test_an_address_that_others_reach_needs_judges(host: str) -> None:
    """Anybody could vote there; loopback is for whoever sits at this machine."""
    with pytest.raises(ConfigError, match="--judge NAME"):
        check_address(host, [])
    check_address(host, ["Ana"])
    for own in ("127.0.0.1", "localhost", "::1", "[::1]"):
        check_address(own, [])

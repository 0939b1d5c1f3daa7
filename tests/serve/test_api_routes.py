"""The API's other answers: mistakes in OpenAI's shape, thumbs, other sites' pages, and the page itself."""

import copy
from pathlib import Path
from typing import Any

import httpx
import orjson

from scaletrain.serve.keys import add_key
from serving import Running, ScriptedEngine, replaceable, said, scripted, served
from tiny import tiny_tokenizer

HELLO: Any = [{"role": "user", "content": "Hello!"}]
CHAT: Any = {"model": "tiny", "messages": HELLO}


def post(server: Running, content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/chat/completions", content=content, headers={"content-type": "application/json", **headers}
    )


def test_what_is_not_asked_well_is_told_in_openais_shape() -> None:
    """Wrong JSON, another type, a body too large (said or not), another method, another path."""
    with served(scripted(ScriptedEngine(said("Hi"))), max_body_bytes=1000) as server:

        def in_parts() -> Any:
            yield b'{"a": "' + b"x" * 2000

        answers = {
            400: post(server, b"{nonsense"),
            415: post(server, orjson.dumps(CHAT), **{"content-type": "text/plain"}),
            413: post(server, b"x" * 1001),
            405: httpx.get(f"{server.url}/v1/chat/completions"),
            404: httpx.get(f"{server.url}/v2/chat"),
        }
        unsaid = httpx.post(f"{server.url}/v1/chat/completions", content=in_parts(), headers=post_headers())
    for status, answer in [*answers.items(), (413, unsaid)]:
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "1000 bytes" in unsaid.json()["error"]["message"]


def post_headers() -> dict[str, str]:
    return {"content-type": "application/json"}


def test_a_model_that_cannot_be_talked_to_says_so() -> None:
    """Without a chat template a chat is a 400 that names the reason; completions go on."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = None
    models = replaceable(lambda _version: ScriptedEngine(said("Hi")), lambda: "1", tokenizer=tokenizer)
    with served(models) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT)
        assert answer.status_code == 400
        assert "no chat template" in answer.json()["error"]["message"]
        answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": "Hello"})
        assert answer.json()["choices"][0]["text"] == "Hi"


def test_thumbs_are_kept_one_line_each(tmp_path: Path) -> None:
    """In the form that judge reads; a vote that makes no sense is refused; without a file there is no such thing."""
    path = tmp_path / "votes" / "feedback.jsonl"
    vote = {"model": "tiny", "messages": HELLO, "answer": "Hi <script>", "vote": "up"}
    with served(scripted(ScriptedEngine([])), feedback=path) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/v1/scaletrain/settings").json()["feedback"] is True
        assert client.post("/v1/feedback", json=vote).json() == {"status": "stored"}
        assert client.post("/v1/feedback", json={**vote, "vote": "down", "comment": "no"}).status_code == 200
        refused = client.post("/v1/feedback", json={**vote, "vote": "sideways", "answer": ""})
        assert refused.status_code == 400
        assert "vote" in refused.json()["error"]["message"]
        assert "answer" in refused.json()["error"]["message"]
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line.pop("time")[:2] for line in lines] == ["20", "20"]
    assert lines == [vote, {**vote, "vote": "down", "comment": "no"}]
    with served(scripted(ScriptedEngine([]))) as server:
        assert httpx.post(f"{server.url}/v1/feedback", json=vote).status_code == 404


def test_only_named_sites_may_call_the_api_from_their_pages() -> None:
    """CORS is off by default; a site that is allowed gets its header, another does not."""
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with served(scripted(ScriptedEngine(said("Hi"))), allow_origins=("https://shop.example",)) as server:
        allowed = {"origin": "https://shop.example"}
        answer = httpx.options(f"{server.url}/v1/chat/completions", headers={**preflight, **allowed})
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
    with served(scripted(ScriptedEngine(said("Hi")))) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, headers=allowed)
        assert "access-control-allow-origin" not in answer.headers


def test_a_server_without_keys_answers_to_its_own_names_alone(tmp_path: Path) -> None:
    """A page whose site's name leads to this machine gets nothing, not even the page; with keys any name does."""
    with served(scripted(ScriptedEngine(said("Hi")))) as server:
        for host in ("localhost", "127.0.0.1", "[::1]", "LocalHost:1234", "127.0.0.1:80"):
            assert post(server, orjson.dumps(CHAT), host=host).status_code == 200
        for host in (
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
        ):
            refused = post(server, orjson.dumps(CHAT), host=host)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "host_not_allowed")
            assert host in refused.json()["error"]["message"]
            assert httpx.get(server.url, headers={"host": host}).status_code == 403
    path = tmp_path / "keys.json"
    bearer = f"Bearer {add_key(path, 'website')}"
    with served(scripted(ScriptedEngine(said("Hi"))), keys=path) as server:
        assert post(server, orjson.dumps(CHAT), host="chat.example", authorization=bearer).status_code == 200


def test_the_page_trusts_nothing_but_its_own_files() -> None:
    """The page, and whatever else lies beside it, comes with a strict Content-Security-Policy."""
    with served(scripted(ScriptedEngine([]))) as server:
        page = httpx.get(server.url)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"

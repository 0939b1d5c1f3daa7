"""judge.remote_answers: an OpenAI-compatible server is asked, politely, and what it says of errors is told."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import orjson
import pytest

from scaletrain.errors import ConfigError, ModelError
from scaletrain.judge.contenders import contenders
from scaletrain.judge.prepare import answered
from scaletrain.judge.remote_answers import remote_answers
from scaletrain.model.generate import Sampling

PROMPTS = [({"role": "user", "content": f"{number}?"},) for number in range(12)]
SAMPLING = Sampling(temperature=0.5, max_new_tokens=7, seed=100)


class Echo(BaseHTTPRequestHandler):
    """Answers with the question, or with the error of a model that is called so; keeps what it was asked."""

    asked: ClassVar[list[dict[str, Any]]]
    busy: ClassVar[int]

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        Echo.asked.append({**body, "path": self.path, "key": self.headers["authorization"]})
        if Echo.busy > 0:
            Echo.busy -= 1
            self._say(503, {"error": {"message": "busy"}})
        elif body["model"] == "unknown":
            self._say(404, {"error": {"message": "no such model"}})
        elif body["model"] == "odd":
            self._say(200, {"hello": 1})
        else:
            self._say(200, {"choices": [{"message": {"content": f" you said {body['messages'][-1]['content']}"}}]})

    def _say(self, status: int, record: dict[str, Any]) -> None:
        content = orjson.dumps(record)
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server in this process."""
    Echo.asked, Echo.busy = [], 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()
        thread.join()


def test_a_server_is_asked_what_a_model_here_would_be(server: str) -> None:
    """Every prompt once, in the order of the prompts, with the settings, a seed each and the key."""
    models = contenders([f"a={server}#one", f"b={server}/#two"])
    items = answered(PROMPTS, models, root="none", sampling=SAMPLING, device="cpu", key="secret")
    assert [item.answers for item in items] == [dict.fromkeys("ab", f"you said {n}?") for n in range(12)]
    asked = sorted((each for each in Echo.asked if each["model"] == "one"), key=lambda each: each["seed"])
    assert [each["seed"] for each in asked] == list(range(100, 112))
    assert asked[3]["messages"] == [{"role": "user", "content": "3?"}]
    assert (asked[0]["temperature"], asked[0]["max_tokens"], asked[0]["key"]) == (0.5, 7, "Bearer secret")
    assert {each["path"] for each in Echo.asked} == {"/v1/chat/completions"}


def test_a_busy_server_is_asked_again(server: str) -> None:
    """A few times; then what it said is the error."""
    Echo.busy = 2
    assert list(remote_answers(f"{server}#m", PROMPTS[:1], SAMPLING, key=None, pauses_s=(0, 0))) == [" you said 0?"]
    Echo.busy = 9
    with pytest.raises(ModelError, match=r"answered 503.*busy"):
        list(remote_answers(f"{server}#m", PROMPTS[:1], SAMPLING, key=None, pauses_s=(0, 0)))
    assert len(Echo.asked) == 6


@pytest.mark.parametrize(
    ("model", "words"), [("unknown", "404.*no such model"), ("odd", "no OpenAI-compatible server")]
)
def test_what_is_wrong_is_told_at_once(server: str, model: str, words: str) -> None:
    """An answer that will not get better is not asked for again."""
    with pytest.raises(ModelError, match=words):
        list(remote_answers(f"{server}#{model}", PROMPTS[:1], SAMPLING, key="secret"))
    assert len(Echo.asked) == 1


def test_a_server_that_is_not_there_is_named() -> None:
    """And an address that does not say which model is refused before anything is asked."""
    with pytest.raises(ModelError, match="does not answer"):
        list(remote_answers("http://127.0.0.1:1/v1#m", PROMPTS[:1], SAMPLING, key=None, pauses_s=()))
    with pytest.raises(ConfigError, match="which model"):
        contenders(["a=http://127.0.0.1:1/v1", "b=x"])

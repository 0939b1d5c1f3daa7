"""What tests of the chat share: a tiny model to talk to, somebody who types, and an OpenAI-compatible server."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
from rich.console import Console

from scaletrain.errors import ModelError
from scaletrain.model.generate import Sampling, stream_reply
from scaletrain.serve.chat_commands import Surroundings
from scaletrain.serve.chat_local import LocalModel
from scaletrain.serve.chat_model import ChatModel
from scaletrain.serve.chat_session import ChatSession
from scaletrain.serve.chat_terminal import Screen, talk
from tiny import tiny_model, tiny_tokenizer

GREEDY = Sampling(temperature=0, max_new_tokens=12)


def local_model(*, name: str = "tiny", seed: int = 0) -> LocalModel:
    return LocalModel(tiny_model(seed=seed), tiny_tokenizer(), name=name)


class Typed:
    """Somebody who types these lines, then Ctrl-D; an exception among them is raised in its place."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = iter([*lines, EOFError()])

    def read(self, *, text: str = "") -> str:
        line = next(self._lines)
        if isinstance(line, BaseException):
            raise line
        return line


def shown(session: ChatSession, *typed: str | BaseException, models: dict[str, ChatModel] | None = None) -> str:
    """Hold a chat, and return what was shown, answers and notes in their order."""
    output = Console(file=io.StringIO(), width=200)
    screen = Screen(output, output, markdown=False)
    reader = Typed(*typed)

    def open_model(name: str) -> ChatModel:
        if name not in (models or {}):
            raise ModelError(f"there is no model {name}")
        return (models or {})[name]

    surroundings = Surroundings(open_model=open_model, edit=lambda text: f"{text} Really?", copy=screen.copy)
    talk(session, screen, reader, surroundings)
    assert isinstance(output.file, io.StringIO)
    return output.file.getvalue()


class _Handler(BaseHTTPRequestHandler):
    """The part of OpenAI's API that a chat needs; the model's name says what goes wrong."""

    protocol_version = "HTTP/1.1"
    models = ("tiny", "busy", "broken", "failing", "forgetful", "odd")
    key: str | None = None
    most_messages = 9
    requests: list[dict[str, Any]]
    ended: threading.Event

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self._is_let_in():
            models = [{"id": name, "object": "model", "max_model_len": 512} for name in self.models]
            self._answer(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_let_in():
            return
        self.requests.append(body)
        if body["model"] == "busy":
            self._answer(429, {"error": {"message": "Too many requests."}}, {"Retry-After": "7"})
            return
        if len(body["messages"]) > self.most_messages:
            too_long = {"message": "The prompt is too long.", "code": "context_length_exceeded"}
            self._answer(400, {"error": too_long})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self._stream(body)
        except OSError:
            pass
        finally:
            self.ended.set()

    def _stream(self, body: dict[str, Any]) -> None:
        if body["model"] == "forgetful":  # never ends, and says so piece by piece
            while True:
                self._event({"choices": [{"delta": {"content": "and "}}]})
                time.sleep(0.005)
        if body["model"] == "odd":
            self._event({"choices": [{"delta": {"content": "a\u2028b\x85c"}}]})
            self.wfile.write(b"data: [DONE]\n\n")
            return
        sampling = Sampling(temperature=body["temperature"], max_new_tokens=body["max_tokens"])
        self._event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for piece in stream_reply(tiny_model(), tiny_tokenizer(), body["messages"], sampling):
            self._event({"choices": [{"delta": {"content": piece}}]})
            if body["model"] == "broken":
                return
            if body["model"] == "failing":
                self._event({"error": {"message": "the engine failed"}})
                return
        self._event({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 12}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b": a comment\n\ndata: " + orjson.dumps(event) + b"\n\n")
        self.wfile.flush()

    def _is_let_in(self) -> bool:
        if self.key is not None and self.headers.get("Authorization") != f"Bearer {self.key}":
            self._answer(401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})
            return False
        return True

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = orjson.dumps(body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def openai_server(
    *, key: str | None = None, models: tuple[str, ...] = _Handler.models, handler_class: type[_Handler] = _Handler
) -> Iterator[tuple[str, Any]]:
    """Serve the tiny model; yields the URL, and the handler's class with the `requests` that came."""
    state = {"key": key, "models": models, "requests": [], "ended": threading.Event()}
    handler = type("Handler", (handler_class,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

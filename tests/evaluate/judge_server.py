"""A small OpenAI-compatible server on this machine, whose answers a test decides."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass
class JudgeServer:
    """Where it is, and what it was asked: bodies and Authorization headers."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def judge_server(answer: Callable[[dict[str, Any]], tuple[int, str]]) -> Iterator[JudgeServer]:
    """Serve POST /v1/chat/completions; `answer` makes a status and the assistant's text of a request's question."""
    told, lock = JudgeServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                told.bodies.append(body)
                told.keys.append(self.headers.get("Authorization"))
                status, text = answer(orjson.loads(body["messages"][-1]["content"]))
            reply = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
            data = orjson.dumps(reply if status == 200 else {"error": {"message": text}})
            self.send_response(status if self.path == "/v1/chat/completions" else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

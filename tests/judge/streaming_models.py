"""An OpenAI-compatible server in this process that streams what its models are made to say."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


class Models(ThreadingHTTPServer):
    """An OpenAI-compatible server that streams; the name of a model says how it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.left_alone = 0  # streams that their reader left

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Models

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append({**body, "key": self.headers["authorization"]})
        self.send_response(404 if body["model"] == "unknown" else 200)
        self.end_headers()
        question = body["messages"][-1]["content"]
        try:
            for word in ["I", " am ", "" if body["model"] == "same" else body["model"], f": {question}"]:
                self._send({"choices": [{"delta": {"content": word}, "finish_reason": None}]})
            while body["model"] == "endless":
                self._send({"choices": [{"delta": {"content": " more"}, "finish_reason": None}]})
                time.sleep(0.02)
            if body["model"] != "broken":
                self._send({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.left_alone += 1

    def _send(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + orjson.dumps(event) + b"\n\n")
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        pass

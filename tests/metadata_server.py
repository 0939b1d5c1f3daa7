"""A metadata service on this machine, over real HTTP, that behaves as the documentation of EC2's or Google's says.

Unlike the emulator's it needs no root, and it can fail, forget its tokens, and have another clock than this machine.
"""

import http.server
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate

ACTION, REBALANCE = "spot/instance-action", "events/recommendations/rebalance"


class MetadataServer:
    """What it answers is in its attributes, which a test changes while it runs; `items` are by their paths."""

    def __init__(self, prefix: str) -> None:
        self.items: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.gives_tokens = self.withholds_tokens = self.wants_tokens = self.is_google = False
        self.failures_left = 0.0
        self.clock_s: float | None = None  # None: it does not say
        self.asked = 0
        self._prefix = prefix

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve for the time of a block; yields host:port."""
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """No log."""

            def do_PUT(self) -> None:
                lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                if service.withholds_tokens:
                    time.sleep(5)  # longer than anybody waits here
                if not service.gives_tokens or self.path != "/latest/api/token":
                    return self._answer(404)
                if not 1 <= int(lifetime) <= 21600:
                    return self._answer(400)
                token = secrets.token_urlsafe(40)
                service.tokens.add(token)
                return self._answer(200, token)

            def do_GET(self) -> None:
                service.asked += 1
                given = self.headers.get("X-aws-ec2-metadata-token")
                if service.failures_left:
                    service.failures_left -= 1
                    return self._answer(503)
                if service.is_google and self.headers.get("Metadata-Flavor") != "Google":
                    return self._answer(403)
                if given not in service.tokens and (given or service.wants_tokens):
                    return self._answer(401)
                text = service.items.get(self.path.removeprefix(service._prefix))
                return self._answer(404) if text is None else self._answer(200, text)

            def _answer(self, status: int, text: str = "") -> None:
                self.send_response_only(status)
                if service.is_google:
                    self.send_header("Metadata-Flavor", "Google")
                if service.clock_s is not None:
                    self.send_header("Date", formatdate(service.clock_s, usegmt=True))
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


def ec2(*, tokens: str = "required") -> MetadataServer:
    """EC2's, whose tokens are "required", unknown as in version 1 ("none"), or "withheld" on the way to a container."""
    server = MetadataServer("/latest/meta-data/")
    server.items["instance-id"] = "i-0123456789abcdef0"
    server.gives_tokens = tokens == "required"
    server.withholds_tokens = tokens == "withheld"
    server.wants_tokens = tokens in ("required", "withheld")
    return server


def google() -> MetadataServer:
    """Google's."""
    server = MetadataServer("/computeMetadata/v1/instance/")
    server.is_google = True
    server.items |= {"preempted": "FALSE", "maintenance-event": "NONE"}
    return server

"""Serves an emulated Google Cloud over HTTPS: which API is asked is told by the Host header."""

import http.server
import json
import ssl
import sys
import threading
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlsplit

from scaletrain.emulator.certificates import ServerCertificate
from scaletrain.emulator.google_request import Answer, Call, Refusal, Resource
from scaletrain.log import get_logger

_log = get_logger(__name__)
_JSON = {"Content-Type": "application/json; charset=UTF-8"}
HOSTS = tuple(
    f"{name}.googleapis.com"
    for name in (
        "cloudbilling",
        "cloudresourcemanager",
        "compute",
        "iam",
        "iamcredentials",
        "oauth2",
        "openidconnect",
        "secretmanager",
        "serviceusage",
        "storage",
        "www",
    )
)


def serve(
    answer: Callable[[Call], Resource | Answer], place: tuple[str, int], certificate: ServerCertificate
) -> tuple[str, int]:
    """Answer at an address and port (0: any) in threads of its own; returns both."""
    server = _Server(place, _Handler)
    server.answer = answer
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    # The handshake is left to the connection's own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True, name="google-apis").start()
    host, port = server.server_address[:2]
    return str(host), int(port)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    answer: Callable[[Call], Resource | Answer]

    def handle_error(self, *_: object) -> None:
        """A client that went away is nobody's error."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("a request to Google's APIs failed")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """The cloud keeps a log of its own."""

    def _serve(self) -> None:
        assert isinstance(self.server, _Server)
        try:
            found = self.server.answer(self._call())
        except Refusal as refusal:
            found = Answer(refusal.render(), refusal.status, _JSON)
        if not isinstance(found, Answer):
            found = Answer(json.dumps(found).encode(), 200, _JSON)
        self.send_response(found.status)
        for name, value in found.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in found.headers:
            self.send_header("Content-Length", str(len(found.data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _call(self) -> Call:
        url = urlsplit(self.path)
        service = self.headers.get("Host", "").partition(":")[0].removesuffix(".googleapis.com")
        return Call(
            service=service,
            method=self.command,
            path=url.path if service == "storage" else unquote(url.path),  # %2F is a part of an object's name
            query=dict(parse_qsl(url.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            data=self._body(),
            address=self.client_address[0],
            target=self.path,
        )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

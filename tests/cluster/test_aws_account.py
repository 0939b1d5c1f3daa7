"""aws_account: whatever AWS answers, the user reads what is wrong and what mends it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from scaletrain.cluster.aws_account import connect
from scaletrain.errors import AccessError, ClusterError, ConfigError


class Refusing(BaseHTTPRequestHandler):
    """Answers every question with the error code of its server."""

    def do_POST(self) -> None:
        code = self.server.code  # type: ignore[attr-defined]
        body = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    """An AWS that refuses everybody with `server.code`."""
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("ExpiredToken", "your AWS session has expired .* `aws sso login`"),
        ("InvalidClientTokenId", "refused your keys .*security_credentials"),
        ("SignatureDoesNotMatch", "refused your keys .*security_credentials"),
        ("AccessDenied", "not allowed to call GetCallerIdentity .*console.aws.amazon.com/iam"),
        ("OptInRequired", "not switched on .*console.aws.amazon.com/billing"),
        ("RequestTimeTooSkewed", "clock is wrong .*set the clock"),
    ],
)
def test_each_refusal_says_what_mends_it(refusing: HTTPServer, code: str, remedy: str) -> None:
    """The console's page, or the command; and exit code 2, since the input was wrong."""
    refusing.code = code  # type: ignore[attr-defined]
    with pytest.raises(AccessError, match=remedy) as caught:
        connect("us-east-1")
    assert caught.value.exit_code == 2 and "testing" not in str(caught.value)


def test_no_credentials_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh laptop has none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    with pytest.raises(AccessError, match="no AWS credentials on this machine; run `aws sso login`"):
        connect("us-east-1")


def test_a_region_that_is_none_is_said(refusing: HTTPServer) -> None:
    """As an unfilled cluster file has it; AWS is not even asked."""
    with pytest.raises(ConfigError, match="give a region as us-east-1"):
        connect("UNFILLED, run: scaletrain cluster init aws")


def test_no_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to look at."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with pytest.raises(ClusterError, match=r"no answer .*check the region's name"):
        connect("us-east-1")

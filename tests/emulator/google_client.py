"""Google's real clients on the emulated APIs without machines: a process that needs no root."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parents[2] / "src"


class GoogleApis:
    """The project's APIs: `build` makes a client, `store` one of Cloud Storage; both are the owner's."""

    project = "emulated-project"
    zone = "us-central1-a"

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        self.told: dict[str, str] = json.loads(process.stdout.readline())

    def build(self, service: str) -> Any:
        import google_auth_httplib2
        import httplib2
        from google.oauth2.credentials import Credentials
        from googleapiclient.discovery import build

        host, _, port = self.told["proxy"].partition(":")
        proxy = httplib2.ProxyInfo(httplib2.socks.PROXY_TYPE_HTTP, host, int(port))
        http = httplib2.Http(proxy_info=proxy, ca_certs=self.told["trusted"])
        token = Credentials(self.owner_token())
        return build(service, "v1", http=google_auth_httplib2.AuthorizedHttp(token, http=http))

    def store(self) -> Any:
        from google.cloud.storage import Client

        session = self.session(token=self.owner_token())
        with pytest.MonkeyPatch.context() as environment:  # which points at another server where that runs too
            environment.delenv("STORAGE_EMULATOR_HOST", raising=False)
            return Client(project=self.project, credentials=session.credentials, _http=session)

    def session(self, *, token: str) -> Any:
        """A session whose requests carry a token."""
        from google.auth.transport.requests import AuthorizedSession
        from google.oauth2.credentials import Credentials

        return self._through_proxy(AuthorizedSession(Credentials(token), refresh_status_codes=()))

    def _through_proxy(self, session: Any) -> Any:
        session.proxies = {"https": f"http://{self.told['proxy']}"}
        session.verify = self.told["trusted"]
        session.trust_env = False
        return session

    def owner_token(self) -> str:
        import requests

        session = self._through_proxy(requests.Session())
        answer = session.post("https://oauth2.googleapis.com/token", data={}, timeout=30)
        return str(answer.json()["access_token"])

    def cloud(self, service: str, operation: str, **arguments: Any) -> Any:
        """Make a call that nobody refuses."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([service, operation, arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer["result"]


@contextmanager
def google_process(folder: Path) -> Iterator[GoogleApis]:
    command = [sys.executable, "-m", "scaletrain.emulator.google_rest", str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SOURCES)}
    )
    try:
        yield GoogleApis(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)

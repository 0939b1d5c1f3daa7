"""An emulated Google Cloud project without machines, in a process of its own, to which this process's clients go."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster_projects import OFFICE, ClusterProject
from scaletrain.cluster.gcp_init import GcpRequest, plan_gcp
from scaletrain.cluster.plan import carry_out

SOURCES = Path(__file__).parents[1] / "src"
PROJECT = "emulated-project"
REGION = "us-central1"
OWNER = {
    "type": "authorized_user",
    "client_id": "id",
    "client_secret": "secret",
    "refresh_token": "token",
    "account": "owner@example.com",
}


class GoogleProject:
    """The project as nobody refuses it: `call` makes any call of Google's API in it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        self.told: dict[str, str] = json.loads(process.stdout.readline())

    def call(self, service: str, operation: str, **arguments: Any) -> Any:
        """Make a call by its name in Google's own documents, as ("compute", "instances.list", zone=...)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([service, operation, arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer["result"]


@contextmanager
def google_project(folder: Path) -> Iterator[GoogleProject]:
    """Run the project, and point this process and its children at it by what Google's clients look at."""
    command = [sys.executable, "-m", "scaletrain.emulator.google_rest", str(folder), PROJECT, REGION]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    try:
        project = GoogleProject(process)
        credentials = folder / "application_default_credentials.json"
        credentials.write_text(json.dumps(OWNER))
        with pytest.MonkeyPatch.context() as environment:
            for name in ("https_proxy", "HTTPS_PROXY"):
                environment.setenv(name, f"http://{project.told['proxy']}")
            for name in ("HTTPLIB2_CA_CERTS", "REQUESTS_CA_BUNDLE"):
                environment.setenv(name, project.told["trusted"])
            # This process may have read the variable already, when it first imported the library.
            environment.setattr("httplib2.CA_CERTS", project.told["trusted"])
            environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
            environment.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
            environment.setenv("NO_GCE_CHECK", "true")
            environment.delenv("STORAGE_EMULATOR_HOST", raising=False)
            yield project
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


def request(project: ClusterProject, **changes: Any) -> GcpRequest:
    """What a user asks of `init` for a project's file."""
    values: dict[str, Any] = {"region": REGION, "bucket": f"gs://{project.cluster}/root", "ssh_from": (OFFICE,)}
    return GcpRequest(project.file, **{**values, **changes})


def initialise(project: ClusterProject) -> None:
    """Make all that a project's file needs, and fill it."""
    carry_out(plan_gcp(request(project))[1], tell=lambda line: None)


def changes_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by each call of this process to Google that could change something."""
    from google.cloud._http import JSONConnection
    from googleapiclient.http import HttpRequest

    calls: list[str] = []
    send, ask = HttpRequest.execute, JSONConnection.api_request

    def note(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.method != "GET" and not self.methodId.endswith((".getIamPolicy", ".testIamPermissions")):
            calls.append(self.methodId)
        return send(self, *arguments, **named)

    def note_of_store(self: Any, method: str, path: str, *arguments: Any, **named: Any) -> Any:
        if method != "GET":
            calls.append(f"{method} {path}")
        return ask(self, method, path, *arguments, **named)

    monkeypatch.setattr(HttpRequest, "execute", note)
    monkeypatch.setattr(JSONConnection, "api_request", note_of_store)
    return calls

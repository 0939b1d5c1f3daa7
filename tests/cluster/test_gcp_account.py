"""gcp_account: whatever Google answers, the user reads what is wrong and what mends it."""

import json
from pathlib import Path
from typing import Any

import pytest

from google_project import PROJECT, REGION, GoogleProject
from scaletrain.cluster.gcp_account import connect, finish, google_errors
from scaletrain.errors import AccessError, ClusterError, ConfigError


class Answer(dict[str, str]):
    """The head of an answer, as Google's client has it."""

    def __init__(self, status: int) -> None:
        super().__init__({"content-type": "application/json"})
        self.status, self.reason = status, "no"


def refusal(status: int, **body: Any) -> Exception:
    """An answer of Google's in the form that it documents."""
    from googleapiclient.errors import HttpError

    return HttpError(Answer(status), json.dumps({"error": {"code": status, "message": "no", **body}}).encode())


DISABLED = {
    "errors": [{"reason": "accessNotConfigured"}],
    "details": [{"reason": "SERVICE_DISABLED", "metadata": {"service": "compute.googleapis.com"}}],
}


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (refusal(401), AccessError, "refused your credentials .*gcloud auth application-default login"),
        (refusal(403), AccessError, "you are not allowed to .*console.cloud.google.com/iam-admin"),
        (refusal(403, **DISABLED), AccessError, "run: gcloud services enable compute.googleapis.com"),
        (refusal(403, errors=[{"reason": "billingNotEnabled"}]), AccessError, "no billing account .*billing/projects"),
        (
            refusal(400, errors=[{"reason": "resourceInUseByAnotherResource"}]),
            ClusterError,
            "still in use .*`ray down`",
        ),
        (refusal(503), ClusterError, "Google answered 503"),
        (ConnectionResetError("reset"), ClusterError, "no answer .*check the network"),
    ],
)
def test_each_refusal_says_what_mends_it(error: Exception, kind: type[Exception], remedy: str) -> None:
    """The command, or the console's page."""
    with pytest.raises(kind, match=f"^looking: .*{remedy}"), google_errors("looking"):
        raise error


def test_no_credentials_at_all_is_said(google: GoogleProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fresh laptop has none; neither has one whose file is gone."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(AccessError, match=r"no usable Google credentials .*gcloud auth application-default login"):
        connect(PROJECT, REGION)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AccessError, match="no usable Google credentials"):
        connect(PROJECT, REGION)


def test_the_project_is_the_callers_own_unless_another_is_named(google: GoogleProject) -> None:
    """As gcloud and the libraries do it."""
    project = connect(None, REGION)
    assert (project.project_id, project.identity) == (PROJECT, "owner@example.com")
    assert project.number.isdigit() and PROJECT in project.described


def test_no_project_at_all_is_said(google: GoogleProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With how to name one."""
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(ConfigError, match="no project; give --project my-project, or set GOOGLE_CLOUD_PROJECT"):
        connect(None, REGION)


def test_no_answer_is_said(google: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to look at."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"no answer .*check the network and the proxy"):
        connect(PROJECT, REGION)


def test_an_operation_that_ends_in_an_error_is_one(google: GoogleProject) -> None:
    """Google says it only there, after it has taken the request."""
    project = connect(PROJECT, REGION)
    failed = {"name": "o", "status": "DONE", "operationType": "insert"}

    class Request:
        """A request that is answered with an operation."""

        def execute(self, num_retries: int) -> dict[str, Any]:
            return {**failed, "error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "too many"}]}}

    with (
        pytest.raises(ClusterError, match=r"making x: insert failed: too many \(QUOTA_EXCEEDED\)"),
        google_errors("making x"),
    ):
        finish(project, Request())

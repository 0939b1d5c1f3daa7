"""An emulated Google Cloud project for the tests of a file, and a project of one's own whose cluster file it fills."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_projects import ClusterProject, make_project
from google_project import GoogleProject, google_project


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleProject]:
    """Google's APIs, to which this process and its children go while the file's tests run."""
    with google_project(tmp_path_factory.mktemp("google")) as project:
        yield project


@pytest.fixture
def gcp(google: GoogleProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterProject:
    """A copy of cluster/gcp.yaml with a name that no other test has, and a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return make_project(tmp_path, kind="gcp")

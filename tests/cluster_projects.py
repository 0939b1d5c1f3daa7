"""A project of one's own in a temporary folder, with the shipped cluster files, for tests that fill and change them."""

import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REGION = "us-east-1"
OFFICE = "203.0.113.7/32"
IMAGE = "ami-03cf127a"  # the emulated EC2 has it


@dataclass(frozen=True)
class ClusterProject:
    """A copy of what the shipped file needs; `file` is its cluster/aws.yaml with a name that no other test has."""

    folder: Path
    file: Path
    cluster: str

    def edit(self, *changes: tuple[str, str]) -> Path:
        """Replace texts in the file; each must be there."""
        text = self.file.read_text()
        for old, new in changes:
            assert old in text, f"{old!r} is not in {self.file}"
            text = text.replace(old, new)
        self.file.write_text(text)
        return self.file


def make_project(folder: Path, *, kind: str = "aws") -> ClusterProject:
    """Copy the parts of this project that `init` wants to find."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "src/scaletrain").mkdir(parents=True)
    (folder / "cluster").mkdir()
    for name in ("setup.sh", "worker_watch.sh"):
        shutil.copy(ROOT / "cluster" / name, folder / "cluster" / name)
    cluster = f"test-{uuid.uuid4().hex[:8]}"
    file = folder / f"cluster/{kind}.yaml"
    text = (ROOT / f"cluster/{kind}.yaml").read_text()
    file.write_text(re.sub(r"^cluster_name: .*$", f"cluster_name: {cluster}", text, count=1, flags=re.M))
    return ClusterProject(folder, file, cluster)


def use_known_image(project: ClusterProject) -> None:
    """Put one image in the place of the shipped file's public ones, which the emulated SSM does not know."""
    text = re.sub(r"resolve:ssm:\S+", IMAGE, project.file.read_text())
    project.file.write_text(text)


def mutations_of(session: Any) -> list[str]:
    """Return a list that grows by the name of each call of a session that could change something."""
    calls: list[str] = []

    def note(model: Any, **_: Any) -> None:
        if not model.name.startswith(("Describe", "Get", "List", "Head", "Simulate")):
            calls.append(model.name)

    session.events.register("before-call", note)
    return calls

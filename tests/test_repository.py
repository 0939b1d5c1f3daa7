"""What the repository says about itself holds: documents, launch scripts and configurations match the code."""

import importlib.util
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from scaletrain.checkpoint import Manifest
from scaletrain.config_file import load_config
from scaletrain.metrics import StepMetrics
from scaletrain.sweep.checking import check_sweep

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), ROOT / ".ci/run"])
CONFIGS = sorted(ROOT.glob("launch/configs/*.yaml"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_of_documents_resolve(document: Path) -> None:
    """A relative link in a document points at a file of the repository."""
    missing = [link for link in _links(document) if not (document.parent / link.partition("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_places_in_documents_that_links_name_are_there(document: Path) -> None:
    """What stands behind the # of a link is a heading of that document, as GitHub makes its name."""
    lost = []
    for link in _links(document):
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        if heading and target.suffix == ".md" and heading not in _headings(target):
            lost.append(link)
    assert lost == []


def _links(document: Path) -> list[str]:
    """The relative links of a document."""
    links = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", document.read_text())
    return [link for pair in links for link in pair if link and "://" not in link]


def _headings(document: Path) -> list[str]:
    """The headings of a document as links name them."""
    heads = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_make_targets_of_documents_exist(document: Path) -> None:
    """A `make` command in a document names a target of the Makefile."""
    named = set(re.findall(r"^ {4}(?:[A-Z_]+=\S+ )?make ([a-z-]+)", document.read_text(), re.M))
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_configs_of_documents_exist(document: Path) -> None:
    """A launch configuration or script that a document names is there."""
    named = set(re.findall(r"launch/[\w./-]+\.(?:yaml|sh)", document.read_text()))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_the_readmes_configuration_is_valid(tmp_path: Path) -> None:
    """The five lines of YAML in the README are a whole configuration."""
    block = re.search(r"^ {4}name: .*(?:\n {4}.*)+", (ROOT / "README.md").read_text(), re.M)
    assert block is not None
    path = tmp_path / "run.yaml"
    path.write_text(re.sub(r"^ {4}", "", block[0], flags=re.M))
    assert load_config(str(path), []).name == "my-model"


@pytest.mark.parametrize("config", CONFIGS, ids=_name)
def test_launch_configurations_load(config: Path) -> None:
    """Every configuration in launch/configs is valid, all values of a sweep too, and its run is called as its file."""
    loaded = load_config(str(config), [])
    assert loaded.name == config.stem
    if loaded.sweep is not None:
        check_sweep(loaded)


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_scripts_are_short_strict_and_parse(script: Path) -> None:
    """A script is executable, strict, under 80 lines, and valid bash."""
    text = script.read_text()
    assert script.stat().st_mode & 0o100
    assert "set -euo pipefail" in text
    assert len(text.splitlines()) < 80
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", [path for path in SCRIPTS if "CONFIG" in path.read_text()], ids=_name)
def test_scripts_say_how_they_are_called(script: Path) -> None:
    """Without what it needs a script ends with 2, and with the line that its first comment has."""
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    usage = done.stderr.strip().removeprefix("usage: ")
    assert done.returncode == 2 and usage.startswith(f"launch/{script.name} CONFIG") and usage in script.read_text()


def test_every_field_of_the_configuration_is_documented() -> None:
    """docs/configuration.md is what docs/write_configuration.py makes of the code; run that after a change."""
    path = ROOT / "docs/write_configuration.py"
    spec = importlib.util.spec_from_file_location("write_configuration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/configuration.md").read_text() == module.reference()


@pytest.mark.parametrize(("page", "record"), [("checkpoints.md", Manifest), ("training.md", StepMetrics)])
def test_every_field_of_a_runs_files_is_documented(page: str, record: type) -> None:
    """A field that a manifest or a line of metrics has is explained where users look."""
    text = (ROOT / "docs" / page).read_text()
    assert [field.name for field in fields(record) if f"`{field.name}`" not in text] == []


def test_torch_is_pinned_once_and_alone() -> None:
    """The Makefile finds exactly one torch in constraints.txt, which it installs before everything else."""
    assert len(re.findall(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(), re.M)) == 1

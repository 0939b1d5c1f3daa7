"""cluster_file: a file is understood as Ray understands it, and one that is not filled is refused by name."""

from pathlib import Path

import pytest

from cluster_projects import ROOT, make_project
from scaletrain.cluster.cluster_file import from_tree, load_cluster_file, read_tree
from scaletrain.errors import ConfigError


@pytest.mark.parametrize("kind", ["aws", "gcp", "local"])
def test_an_unfilled_file_says_what_to_run(kind: str) -> None:
    """Nobody has to know which lines are to be filled."""
    with pytest.raises(ConfigError, match=rf"not filled yet; run: scaletrain cluster init {kind} --file .*{kind}.yaml"):
        load_cluster_file(ROOT / f"cluster/{kind}.yaml")


def test_what_others_need_is_read(tmp_path: Path) -> None:
    """Name, region, user, types with their numbers, resources and market."""
    project = make_project(tmp_path)
    tree, problems = read_tree(project.file)
    file = from_tree(project.file, tree)
    assert problems == []
    assert (file.name, file.provider, file.ssh_user, file.head.name) == (project.cluster, "aws", "ubuntu", "head")
    assert [(kind.name, kind.min_workers, kind.max_workers, kind.market) for kind in file.workers] == [
        ("cpu", 0, 4, "spot"),
        ("gpu_spot", 0, 4, "spot"),
        ("gpu_ondemand", 0, 0, "on-demand"),
    ]
    assert [kind.gpus for kind in file.workers] == [0, 1, 1]


def test_machines_of_ones_own_are_one_type(tmp_path: Path) -> None:
    """Ray calls it local.cluster.node, and all of them join."""
    path = tmp_path / "local.yaml"
    path.write_text("cluster_name: c\nprovider: {type: local, head_ip: a, worker_ips: [b, d]}\nauth: {ssh_user: me}\n")
    file = load_cluster_file(path)
    assert [(kind.name, kind.max_workers) for kind in file.workers] == [("local.cluster.node", 2)]
    assert (file.ssh_user, file.region, file.bucket_root, file.max_workers) == ("me", None, None, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "check brackets"),
        ("- a", "is no cluster file"),
        ("cluster_name: c\ncluster_name: d\nprovider: {type: aws}", "cluster_name is given twice"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With its line, where there is one."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_cluster_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path is the commonest mistake."""
    with pytest.raises(ConfigError, match="not found; name a cluster file"):
        load_cluster_file(tmp_path / "none.yaml")

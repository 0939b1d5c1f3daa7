"""init: what is alike for every cloud, addresses and buckets' names, and files for machines of one's own."""

from pathlib import Path
from typing import Any

import pytest

from cluster_projects import make_project
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.cluster.init import plan_local, split_bucket_url, ssh_addresses
from scaletrain.cluster.plan import carry_out, to_do
from scaletrain.errors import ConfigError


@pytest.mark.parametrize(("address", "message"), [("0.0.0.0/0", "the whole world"), ("home", "is no address")])
def test_an_open_or_wrong_address_is_refused(address: str, message: str) -> None:
    """Even when asked for."""
    with pytest.raises(ConfigError, match=message):
        ssh_addresses([address])


def test_a_bucket_without_a_folder_gets_one() -> None:
    """Rights are given below a folder, so that the bucket can hold other things."""
    assert split_bucket_url("gs://my-bucket", scheme="gs://") == ("my-bucket", "scaletrain")
    assert split_bucket_url("s3://my-bucket/a/b/", scheme="s3://") == ("my-bucket", "a/b")
    with pytest.raises(ConfigError, match="is no bucket's name"):
        split_bucket_url("gs://My_Bucket", scheme="gs://")


def test_a_file_for_machines_of_ones_own_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any account."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = make_project(tmp_path, kind="local")
    key = tmp_path / "key"
    key.write_text("x")
    wishes: dict[str, Any] = {"head": "10.0.0.1", "workers": ["10.0.0.2"], "ssh_user": "me", "ssh_key": key}
    carry_out(plan_local(project.file, bucket="s3://b/x", **wishes), tell=lambda line: None)
    file = load_cluster_file(project.file)
    assert (file.raw["provider"]["head_ip"], file.max_workers, file.ssh_user) == ("10.0.0.1", 1, "me")
    assert to_do(plan_local(project.file, bucket="s3://b/x", **wishes)) == []

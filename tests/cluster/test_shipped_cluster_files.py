"""cluster/*.yaml: what the shipped files promise, read from the files as they are."""

import re
from typing import Any

import pytest
import yaml

from cluster_projects import ROOT
from scaletrain.cluster.places import find_places


def shipped(kind: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / f"cluster/{kind}.yaml").read_text())
    return tree


@pytest.mark.parametrize("kind", ["aws", "local"])
def test_the_token_is_asked_for_everywhere_and_stands_nowhere(kind: str) -> None:
    """It comes by a file, made on the user's machine."""
    tree = shipped(kind)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all("RAY_AUTH_MODE=token" in command for command in tree[name] if "ray start" in command)
    assert "~/.ray/auth_token" in tree["file_mounts"]
    assert not re.search(r"RAY_AUTH_TOKEN\b|[0-9a-f]{32}", (ROOT / f"cluster/{kind}.yaml").read_text())


@pytest.mark.parametrize("kind", ["aws", "local"])
def test_the_dashboard_stays_on_loopback(kind: str) -> None:
    """It is reached through the tunnel."""
    assert "--dashboard-host=127.0.0.1" in " ".join(shipped(kind)["head_start_ray_commands"])


@pytest.mark.parametrize("kind", ["aws", "local"])
def test_starting_twice_does_not_end_what_runs(kind: str) -> None:
    """`ray up` on a running cluster must not cost a training run."""
    tree = shipped(kind)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in tree[name]:
            assert command.index("pgrep") < command.index("ray start")
    assert "ray stop" not in " ".join(shipped("local")["head_start_ray_commands"])


def test_only_what_an_installation_needs_is_copied() -> None:
    """Ray reads every file below a mount at each `ray up`."""
    assert not any(value.endswith("project") for value in find_places((ROOT / "cluster/aws.yaml").read_text()))
    assert "~/scaletrain/src" in shipped("aws")["file_mounts"]


def test_every_machine_on_aws_is_locked_alike() -> None:
    """Disks, credentials, doors and tags: no type is forgotten."""
    tree = shipped("aws")
    for kind in tree["available_node_types"].values():
        config = kind["node_config"]
        assert config["MetadataOptions"] == {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        }
        assert all(
            disk["Ebs"]["Encrypted"] and disk["Ebs"]["DeleteOnTermination"] for disk in config["BlockDeviceMappings"]
        )
        assert config["SecurityGroupIds"] and config["IamInstanceProfile"]["Name"] and config["TagSpecifications"]
        assert config["ImageId"].startswith("resolve:ssm:/aws/service/")
    assert "security_group" not in tree["provider"]


def test_the_head_takes_no_work_and_is_never_lost_to_spot() -> None:
    """Without it the cluster is gone."""
    head = shipped("aws")["available_node_types"]["head"]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_a_training_group_is_of_one_type() -> None:
    """Each GPU type has a resource of its own, as often as it has GPUs; the dearer one comes last, switched off."""
    types = {name: kind for name, kind in shipped("aws")["available_node_types"].items() if name.startswith("gpu_")}
    groups = [
        {key: count for key, count in kind["resources"].items() if key.startswith("group_")} for kind in types.values()
    ]
    assert groups == [{"group_spot": 1}, {"group_ondemand": 1}]
    assert [kind["max_workers"] > 0 for kind in types.values()] == [True, False]


def test_head_and_workers_judge_each_other_by_the_same_times() -> None:
    """A setting on one side only would do half of it."""
    head, worker = (
        set(re.findall(r"RAY_[a-z]\w+=\d+", shipped("aws")[f"{who}_start_ray_commands"][0]))
        for who in ("head", "worker")
    )
    assert head == worker and len(head) == 10

"""cluster/*.yaml: what the shipped files promise, read from the files as they are."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import merge_setup_commands

from cluster_projects import ROOT
from scaletrain.cluster import stopping
from scaletrain.cluster.places import find_places
from scaletrain.config_serve import ServeSection


def shipped(kind: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / f"cluster/{kind}.yaml").read_text())
    return tree


@pytest.mark.parametrize("kind", ["aws", "gcp", "local"])
def test_the_token_is_asked_for_everywhere_and_stands_nowhere(kind: str) -> None:
    """It comes by a file, made on the user's machine."""
    tree = shipped(kind)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all("RAY_AUTH_MODE=token" in command for command in tree[name] if "ray start" in command)
    assert "~/.ray/auth_token" in tree["file_mounts"]
    assert not re.search(r"RAY_AUTH_TOKEN\b|[0-9a-f]{32}", (ROOT / f"cluster/{kind}.yaml").read_text())


@pytest.mark.parametrize("kind", ["aws", "gcp", "local"])
def test_the_dashboard_stays_on_loopback(kind: str) -> None:
    """It is reached through the tunnel."""
    assert "--dashboard-host=127.0.0.1" in " ".join(shipped(kind)["head_start_ray_commands"])


@pytest.mark.parametrize("kind", ["aws", "gcp", "local"])
def test_starting_twice_does_not_end_what_runs(kind: str) -> None:
    """`ray up` on a running cluster must not cost a training run."""
    tree = shipped(kind)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in tree[name]:
            assert command.index("pgrep") < command.index("ray start")
    assert "ray stop" not in " ".join(shipped("local")["head_start_ray_commands"])
    assert "ray stop" not in " ".join(shipped("gcp")["worker_start_ray_commands"])


@pytest.mark.parametrize("kind", ["aws", "gcp"])
@pytest.mark.parametrize("part", ["head", "worker"])
@pytest.mark.parametrize(("failures", "exit_code"), [(0, 0), (1, 0), (2, 1)])
def test_a_first_start_that_was_too_slow_is_tried_once_more(
    kind: str, part: str, failures: int, exit_code: int, tmp_path: Path
) -> None:
    """The command is run as Ray's launcher has it run, with a `ray` that keeps what it was asked for."""
    asked, left = tmp_path / "asked", tmp_path / "left"
    left.write_text("x" * failures)
    for name, lines in {
        "pgrep": "exit 1",
        "ray": f"""[ "$1" = start ] || exit 0
                   echo "$*" >> {asked}
                   [ -s {left} ] || exit 0
                   truncate -s -1 {left}; exit 1""",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    (command,) = shipped(kind)[f"{part}_start_ray_commands"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = command.replace("/opt/scaletrain/venv/bin", str(tmp_path / "none"))
    ended = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PATH": path, "RAY_HEAD_IP": "10.0.0.1"}, check=False
    )
    assert ended.returncode == exit_code
    started = asked.read_text().splitlines()
    assert len(started) == min(failures + 1, 2) and len(set(started)) == 1
    assert started[0].startswith("start --head --port=6379" if part == "head" else "start --address=10.0.0.1:6379")


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_only_what_an_installation_needs_is_copied(kind: str) -> None:
    """Ray reads every file below a mount at each `ray up`."""
    assert not any(value.endswith("project") for value in find_places((ROOT / f"cluster/{kind}.yaml").read_text()))
    assert "~/scaletrain/src" in shipped(kind)["file_mounts"]


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


def test_every_machine_on_google_is_locked_alike() -> None:
    """Accounts, doors, keys and labels: no type is forgotten; what Google takes back on spot is deleted."""
    for name, kind in shipped("gcp")["available_node_types"].items():
        config = kind["node_config"]
        keys = {each["key"]: each["value"] for each in config["metadata"]["items"]}
        assert (keys["block-project-ssh-keys"], keys["enable-oslogin"]) == ("TRUE", "FALSE")
        assert config["serviceAccounts"] and config["tags"]["items"] and "scaletrain-cluster" in config["labels"]
        assert config["networkInterfaces"][0]["nicType"] == "GVNIC"
        assert config["shieldedInstanceConfig"]["enableVtpm"]
        assert config["shieldedInstanceConfig"]["enableSecureBoot"] is not name.startswith("gpu_")
        (disk,) = config["disks"]
        assert disk["autoDelete"] and "/images/family/" in disk["initializeParams"]["sourceImage"]
        assert disk["initializeParams"]["labels"] == config["labels"]
        scheduling = config.get("scheduling", {})
        assert ("provisioningModel" in scheduling) == ("instanceTerminationAction" in scheduling)


def test_on_google_there_are_far_more_places_for_set_up_than_workers() -> None:
    """Ray's vain retries hold one each, and a new machine would wait for them."""
    tree = shipped("gcp")
    assert tree["max_workers"] >= 2 * sum(kind["max_workers"] for kind in tree["available_node_types"].values())


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_the_head_takes_no_work_and_is_never_lost_to_spot(kind: str) -> None:
    """Without it the cluster is gone."""
    head = shipped(kind)["available_node_types"]["head"]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert not {"InstanceMarketOptions", "scheduling"} & set(head["node_config"])


@pytest.mark.parametrize(("kind", "names"), [("aws", ["spot", "ondemand"]), ("gcp", ["spot", "a100", "ondemand"])])
def test_a_training_group_is_of_one_type(kind: str, names: list[str]) -> None:
    """Each GPU type has a resource of its own, as often as it has GPUs; the dearer ones come later, switched off."""
    types = {name: each for name, each in shipped(kind)["available_node_types"].items() if name.startswith("gpu_")}
    groups = [
        {key: count for key, count in each["resources"].items() if key.startswith("group_")} for each in types.values()
    ]
    assert groups == [{f"group_{name}": 1} for name in names]
    assert [each["max_workers"] > 0 for each in types.values()] == [True] + [False] * (len(names) - 1)


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_head_and_workers_judge_each_other_by_the_same_times(kind: str) -> None:
    """A setting on one side only would do half of it."""
    head, worker = (
        set(re.findall(r"RAY_[a-z]\w+=\d+", shipped(kind)[f"{who}_start_ray_commands"][0]))
        for who in ("head", "worker")
    )
    assert head == worker and len(head) == 10


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_a_head_that_stands_still_for_a_few_seconds_is_not_lost(kind: str) -> None:
    """Nothing replaces it: its disk or its host may make it pause."""
    given = dict(re.findall(r"RAY_health_check_(\w+)=(\d+)", shipped(kind)["head_start_ray_commands"][0]))
    assert 8000 <= int(given["failure_threshold"]) * int(given["timeout_ms"]) <= 15000


@pytest.mark.parametrize("kind", ["aws", "gcp", "local"])
def test_a_job_that_is_told_to_end_is_not_killed_before_it_could(kind: str) -> None:
    """A server drains, then removes its replicas; `stop` waits longer than Ray does."""
    (command,) = shipped(kind)["head_start_ray_commands"]
    waits = int(re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", command)[0])
    assert 2 * ServeSection().drain_s <= waits < stopping._END_WITHIN_S


def test_a_cloud_without_capacity_is_not_asked_without_end() -> None:
    """AWS throttles who asks several times a second."""
    (command,) = shipped("aws")["head_start_ray_commands"]
    given = {name: int(value) for name, value in re.findall(r"([A-Z_]+)=(\d+)", command)}
    assert given["AUTOSCALER_UPDATE_INTERVAL_S"] >= 2 and given["BOTO_CREATE_MAX_RETRIES"] == 1


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_workers_that_lost_their_head_end_themselves(kind: str) -> None:
    """Also while they are being set up, so that comes first of all commands."""
    tree = merge_setup_commands(shipped(kind))
    assert tree["worker_setup_commands"][0] == "bash ~/scaletrain/worker_watch.sh install"
    for name, each in tree["available_node_types"].items() if kind == "aws" else ():
        behaviour = each["node_config"].get("InstanceInitiatedShutdownBehavior")
        assert behaviour == (None if name == "head" else "terminate")

"""gcp_file: what Google would refuse, and what would make machines weak, is said before anything is launched."""

import copy
from typing import Any

import pytest

from scaletrain.cluster.gcp_file import gcp_file_problems

CONFIG: dict[str, Any] = {
    "machineType": "g2-standard-8",
    "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": "x", "diskSizeGb": 100}}],
    "serviceAccounts": [{"email": "head@p.iam.gserviceaccount.com", "scopes": ["s"]}],
    "tags": {"items": ["c"]},
    "networkInterfaces": [{"subnetwork": "s", "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}],
    "metadata": {
        "items": [
            {"key": "ssh-keys", "value": "ubuntu:ssh-ed25519 A"},
            {"key": "block-project-ssh-keys", "value": "TRUE"},
            {"key": "enable-oslogin", "value": "FALSE"},
        ]
    },
}
WORKER = [{"email": "worker@p.iam.gserviceaccount.com", "scopes": ["s"]}]


def tree(**worker: Any) -> dict[str, Any]:
    """A file with a good head and one worker type, changed as asked (None: without that key)."""
    config = {**copy.deepcopy(CONFIG), "serviceAccounts": WORKER, **worker}
    config = {key: value for key, value in config.items() if value is not None}
    return {
        "cluster_name": "my-cluster",
        "metadata": {"bucket": "gs://b/x"},
        "provider": {"type": "gcp", "region": "r1", "availability_zone": "r1-a", "project_id": "p"},
        "head_node_type": "head",
        "worker_start_ray_commands": ["pgrep -x raylet || ray start --address=x"],
        "available_node_types": {"head": {"node_config": CONFIG}, "gpu": {"node_config": config}},
    }


def problems(**worker: Any) -> list[str]:
    return [each.removeprefix("available_node_types.gpu.node_config") for each in gcp_file_problems(tree(**worker))]


def test_a_good_file_has_no_problems() -> None:
    """Nothing is asked for that does not matter; Ray's own key is known."""
    assert problems() == []
    assert problems(sourceInstanceTemplate="global/instanceTemplates/x") == []


def test_a_misspelt_field_is_named_by_googles_own_list() -> None:
    """Google would refuse it, after the head runs; deep in the tree too."""
    assert problems(machinetype="x") == [".machinetype: Google knows no such field; did you mean machineType?"]
    disks = [{"boot": True, "autodelete": True, "initializeParams": {"sourceImage": "x"}}]
    assert problems(disks=disks)[0] == ".disks.0.autodelete: Google knows no such field; did you mean autoDelete?"


@pytest.mark.parametrize(
    ("worker", "part"),
    [
        ({"scheduling": [{"preemptible": True}]}, ".scheduling: got list; give fields in braces"),
        ({"scheduling": {"provisioningModel": "SPOTT"}}, "did you mean SPOT?"),
        ({"canIpForward": "yes"}, "give a value of type boolean"),
        ({"disks": {"boot": True}}, "give a value of type array"),
    ],
)
def test_a_wrong_form_is_named_by_googles_own_description(worker: dict[str, Any], part: str) -> None:
    """Also the one that Ray's own example has."""
    (problem,) = problems(**worker)
    assert part in problem


@pytest.mark.parametrize(
    ("worker", "part"),
    [
        ({"serviceAccounts": None}, "get no way to the bucket"),
        ({"serviceAccounts": [{"email": "1-compute@developer.gserviceaccount.com"}]}, "the project's default account"),
        ({"serviceAccounts": [{"email": "default"}]}, "the project's default account"),
        ({"serviceAccounts": [{"email": "ray-autoscaler-sa-v1@p.iam.gserviceaccount.com"}]}, "Ray's own account"),
        ({"serviceAccounts": CONFIG["serviceAccounts"]}, "has the head's account"),
        ({"tags": None}, "admit the whole world to port 22"),
        ({"networkInterfaces": None}, "Ray would take any subnet"),
        ({"networkInterfaces": [{"subnetwork": "s"}]}, "gets no public address"),
        ({"disks": [{"boot": True, "initializeParams": {"sourceImage": "x"}}]}, "outlives its machine"),
        ({"disks": [{"boot": True, "autoDelete": True}]}, "sourceImage is missing"),
        ({"disks": None}, "none with boot: true"),
        ({"machineType": None}, "machineType is missing"),
        ({"scheduling": {"provisioningModel": "SPOT"}}, "set instanceTerminationAction: DELETE"),
        ({"scheduling": {"preemptible": True}}, "write provisioningModel: SPOT"),
        ({"guestAccelerators": [{"acceleratorType": "x"}]}, "set onHostMaintenance: TERMINATE"),
    ],
)
def test_what_makes_machines_weak_is_found(worker: dict[str, Any], part: str) -> None:
    """One problem each, with what to do."""
    (problem,) = problems(**worker)
    assert part in problem


def test_keys_of_others_and_os_login_are_found() -> None:
    """The one lets strangers in, the other keeps Ray out."""
    found = problems(metadata={"items": []})
    assert len(found) == 3
    for part in ("nobody can log in", "keys of the project open this machine", "add enable-oslogin: FALSE"):
        assert any(part in problem for problem in found)


def test_names_that_google_does_not_take_are_found() -> None:
    """Ray would put them on each machine, and Google refuse it."""
    wrong = {**tree(), "cluster_name": "My_Cluster"}
    wrong["available_node_types"]["GPU"] = wrong["available_node_types"].pop("gpu")
    found = list(gcp_file_problems(wrong))
    assert len(found) == 2 and "cluster_name: got My_Cluster" in found[0] and "node_types.GPU: no label" in found[1]


def test_commands_that_would_end_workers_are_found() -> None:
    """Ray runs them again on workers that work; on Google Cloud only."""
    wrong = {**tree(), "worker_start_ray_commands": ["ray stop", "ray start --address=x"]}
    found = list(gcp_file_problems(wrong))
    assert len(found) == 2 and "`ray stop` would end one after the other" in found[0] and "pgrep -x raylet" in found[1]


def test_a_provider_that_leads_nowhere_is_found() -> None:
    """Missing, or a zone of another region, or a bucket of another cloud."""
    provider = {"type": "gcp", "region": "r1", "availability_zone": "r2-a"}
    wrong = {**tree(), "provider": provider, "metadata": {"bucket": "s3://b"}}
    found = list(gcp_file_problems(wrong))
    assert found[0] == "provider.project_id: missing; name one, as my-project"
    assert "r2-a is not in r1" in found[1] and "got s3://b; give a URL of Google Cloud Storage" in found[2]

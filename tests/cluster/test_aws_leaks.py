"""aws_leaks: what costs money without a living cluster is found and removed; what a living one uses is left alone."""

import uuid
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from cluster_projects import IMAGE, REGION
from scaletrain.cluster import aws_account, sweep
from scaletrain.cluster.aws_account import connect
from scaletrain.cluster.aws_leaks import find_costs, remove_leaks


@pytest.fixture
def cluster(s3_server: str) -> str:
    return f"leak-{uuid.uuid4().hex[:8]}"


def tags(cluster: str, kind: str, **more: str) -> list[dict[str, Any]]:
    found = [{"Key": "scaletrain:cluster", "Value": cluster}, *({"Key": k, "Value": v} for k, v in more.items())]
    return [{"ResourceType": kind, "Tags": found}]


def start(cluster: str, node_type: str, *, seen_in: str | None = None) -> str:
    ec2 = boto3.client("ec2", region_name=REGION)
    spec = tags(cluster, "instance", **{"ray-cluster-name": seen_in or cluster, "ray-node-type": node_type})
    answer = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="m5.large", TagSpecifications=spec)
    return str(answer["Instances"][0]["InstanceId"])


def leave_parts(cluster: str) -> set[str]:
    ec2 = boto3.client("ec2", region_name=REGION)
    volume = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=10, TagSpecifications=tags(cluster, "volume"))
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tags(cluster, "elastic-ip"))
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    interface = ec2.create_network_interface(SubnetId=subnet, TagSpecifications=tags(cluster, "network-interface"))
    ids = {volume["VolumeId"], address["AllocationId"], interface["NetworkInterface"]["NetworkInterfaceId"]}
    return {str(each) for each in ids}


def test_a_living_cluster_has_no_leaks(cluster: str) -> None:
    """Its workers and their disks are in use."""
    start(cluster, "head")
    start(cluster, "worker")
    assert find_costs(connect(REGION), cluster).leaks == []


def test_a_living_cluster_is_told_for_it_costs_money(cluster: str) -> None:
    """Its head may be a forgotten one, or one whose set-up failed; a cluster without a head is told as leaks."""
    head = start(cluster, "head")
    start(cluster, "worker")
    start(f"{cluster}-other", "worker")
    (living,) = find_costs(connect(REGION), cluster).living
    told = f"not a leak, but it costs money: {cluster}: head {head} since {datetime.now(UTC):%Y-%m-%d}, 1 worker; "
    assert living.line("my.yaml") == f"{told}end it: scaletrain down my.yaml"
    assert find_costs(connect(REGION), f"{cluster}-other").living == []


def test_a_machine_that_its_living_cluster_does_not_see_is_a_leak(cluster: str) -> None:
    """One that was taken out to make an image of it, for which the head has a new one started."""
    start(cluster, "head")
    worker = start(cluster, "worker", seen_in=f"{cluster}-image")
    assert [leak.id for leak in find_costs(connect(REGION), cluster).leaks] == [worker]
    assert [each.workers for each in find_costs(connect(REGION), cluster).living] == [0]


def test_a_cluster_that_was_renamed_after_init_lives_by_rays_name(cluster: str) -> None:
    """Its machines bear our tag with the old name; nobody wants them ended for that."""
    start(cluster, "head", seen_in=f"{cluster}-new")
    start(cluster, "worker", seen_in=f"{cluster}-new")
    assert find_costs(connect(REGION), cluster).leaks == []
    assert [each.workers for each in find_costs(connect(REGION), f"{cluster}-new").living] == [1]


def test_a_sweep_lists_the_machines_once(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For leaks and for living clusters: an account may have many, and its API admits few calls."""
    start(cluster, "head")
    account, calls = connect(REGION), list[str]()
    account.session.events.register("before-call.ec2", lambda model, **_: calls.append(model.name))
    monkeypatch.setattr(aws_account, "connect", lambda region: account)
    found = sweep.find(None, cluster=cluster, region=REGION, project_id=None)
    assert ([each.cluster for each in found.living], calls.count("DescribeInstances")) == ([cluster], 1)


def test_workers_without_a_head_and_loose_parts_are_leaks(cluster: str) -> None:
    """Each with what it is."""
    worker = start(cluster, "worker")
    parts = leave_parts(cluster)
    assert {leak.id for leak in find_costs(connect(REGION), cluster).leaks} == {worker, *parts}


def test_deleting_leaves_nothing_and_touches_no_other_cluster(cluster: str) -> None:
    """By its own list only."""
    start(cluster, "worker")
    leave_parts(cluster)
    start(f"{cluster}-other", "worker")
    account = connect(REGION)
    remove_leaks(account, find_costs(account, cluster).leaks, tell=lambda line: None)
    assert find_costs(account, cluster).leaks == []
    assert len(find_costs(account, f"{cluster}-other").leaks) == 1


def test_what_is_not_ours_is_never_listed(cluster: str) -> None:
    """An untagged disk belongs to somebody else."""
    ec2 = boto3.client("ec2", region_name=REGION)
    foreign = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    assert foreign not in {leak.id for leak in find_costs(connect(REGION)).leaks}

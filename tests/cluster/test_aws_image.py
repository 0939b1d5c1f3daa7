"""aws_image: a prepared image is made of a worker that Ray no longer counts on, and says how to use it."""

from pathlib import Path

import boto3
import pytest

from cluster_projects import IMAGE, REGION, make_project
from scaletrain.cluster.aws_account import connect
from scaletrain.cluster.aws_image import bake_image
from scaletrain.cluster.aws_leaks import find_costs, images_of, remove_leaks
from scaletrain.cluster.cluster_file import ClusterFile, from_tree, read_tree
from scaletrain.errors import ClusterError, ConfigError


@pytest.fixture
def file(s3_server: str, tmp_path: Path) -> ClusterFile:
    project = make_project(tmp_path)
    return from_tree(project.file, read_tree(project.file)[0])


def start_worker(file: ClusterFile, status: str) -> str:
    tags = {"ray-cluster-name": file.name, "ray-user-node-type": "gpu_spot", "ray-node-status": status}
    spec = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]
    answer = boto3.client("ec2", region_name=REGION).run_instances(
        ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="g6.xlarge", TagSpecifications=spec
    )
    return str(answer["Instances"][0]["InstanceId"])


def test_an_image_is_made_of_a_machine_that_was_wiped_out_of_the_clusters_sight(file: ClusterFile) -> None:
    """First it leaves the cluster, then it is wiped, then imaged, then it goes."""
    machine = start_worker(file, "up-to-date")
    ec2 = boto3.client("ec2", region_name=REGION)
    seen: list[str] = []

    def wipe(_: ClusterFile, address: str) -> None:
        found = ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
        seen.extend(tag["Value"] for tag in found["Tags"] if tag["Key"] == "ray-cluster-name")

    baked = bake_image(connect(REGION), file, "gpu_spot", tell=lambda line: None, wipe=wipe)
    (image,) = ec2.describe_images(ImageIds=[baked.image_id])["Images"]
    assert {"Key": "scaletrain:cluster", "Value": file.name} in image["Tags"]
    state = ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]["State"]["Name"]
    assert (seen, state) == ([f"{file.name}-image"], "terminated")
    assert f"ImageId: {baked.image_id}" in baked.advice(file)


@pytest.mark.parametrize("failure", [ClusterError("could not be wiped"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_worker_that_cannot_be_imaged_is_ended_all_the_same(file: ClusterFile, failure: BaseException) -> None:
    """Ray and `ray down` do not see it any more, so it would run on and cost money."""
    machine = start_worker(file, "up-to-date")

    def wipe(_: ClusterFile, address: str) -> None:
        raise failure

    with pytest.raises(type(failure)):
        bake_image(connect(REGION), file, "gpu_spot", tell=lambda line: None, wipe=wipe)
    ec2 = boto3.client("ec2", region_name=REGION)
    (left,) = ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"]
    assert left["State"]["Name"] == "terminated"


def test_a_worker_that_cannot_be_ended_either_is_named_with_its_remedy(file: ClusterFile) -> None:
    """The first failure is what is raised; the worker is found as a leak of its cluster."""
    machine, told = start_worker(file, "up-to-date"), list[str]()
    account, ec2 = connect(REGION), boto3.client("ec2", region_name=REGION)
    ec2.modify_instance_attribute(InstanceId=machine, DisableApiTermination={"Value": True})

    def wipe(_: ClusterFile, address: str) -> None:
        raise ClusterError("could not be wiped")

    with pytest.raises(ClusterError, match="could not be wiped"):
        bake_image(account, file, "gpu_spot", tell=told.append, wipe=wipe)
    assert f"`scaletrain cluster sweep-leaks {file.path} --delete`" in told[-1]
    assert [leak.id for leak in find_costs(account, file.name).leaks] == [machine]


def test_an_image_that_the_file_no_longer_names_goes_with_its_snapshots(file: ClusterFile) -> None:
    """Those cost, and would stay without it; the image in use is no leak."""
    account, ec2 = connect(REGION), boto3.client("ec2", region_name=REGION)
    start_worker(file, "up-to-date")
    baked = bake_image(account, file, "gpu_spot", tell=lambda line: None, wipe=lambda _, address: None)
    (made,) = ec2.describe_images(ImageIds=[baked.image_id])["Images"]
    snapshots = [each["Ebs"]["SnapshotId"] for each in made["BlockDeviceMappings"]]
    assert find_costs(account, file.name, images_in_use={baked.image_id}).leaks == []
    leaks = find_costs(account, file.name, images_in_use=images_of(file)).leaks
    assert [(leak.kind, leak.id) for leak in leaks] == [("image", baked.image_id)]
    remove_leaks(account, leaks, tell=lambda line: None)
    assert find_costs(account, file.name, images_in_use=images_of(file)).leaks == []
    left = {each["SnapshotId"] for each in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert snapshots and not left & {*snapshots}


def test_a_machine_that_is_not_set_up_is_none_to_copy(file: ClusterFile) -> None:
    """The message says how to get one."""
    start_worker(file, "setting-up")
    with pytest.raises(ClusterError, match="set min_workers: 1 for it, run `ray up"):
        bake_image(connect(REGION), file, "gpu_spot", tell=lambda line: None)


def test_a_type_that_is_none_is_named(file: ClusterFile) -> None:
    """The head is none to choose."""
    with pytest.raises(ConfigError, match="--node-type: got head; workers are cpu, gpu_spot, gpu_ondemand"):
        bake_image(connect(REGION), file, "head", tell=lambda line: None)

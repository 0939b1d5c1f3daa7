"""An image of a worker on AWS."""

from collections.abc import Callable
from typing import Any

from scaletrain.cluster.aws_account import Account, aws_errors, tags_of
from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.cluster.image import (
    BakedImage,
    Wipe,
    choose_type,
    ended_if_it_fails,
    image_name,
    none_is_set_up,
    wipe_over_ssh,
)


def bake_image(
    account: Account,
    file: ClusterFile,
    node_type: str | None,
    *,
    tell: Callable[[str], None],
    wipe: Wipe = wipe_over_ssh,
) -> BakedImage:
    """Make an image of a running worker of a type (the first with GPUs by default); it is terminated, also on failure.

    Raises ClusterError where none is set up. `wipe` cleans the machine at an address; over SSH by default.
    """
    kind = choose_type(file, node_type)
    ec2 = account.client("ec2")
    machine = _find_worker(ec2, file, kind)
    machine_id, address = str(machine["InstanceId"]), machine.get("PublicIpAddress") or machine["PrivateIpAddress"]
    name = image_name(file, kind)
    tell(f"take {machine_id} out of the cluster")
    with aws_errors(f"taking {machine_id} out of the cluster"):
        ec2.create_tags(
            Resources=[machine_id],
            Tags=[
                {"Key": "ray-cluster-name", "Value": f"{file.name}-image"},
                {"Key": "Name", "Value": name},
                *tags_of(file.name),
            ],
        )

    def end() -> None:
        with aws_errors(f"ending {machine_id}"):
            ec2.terminate_instances(InstanceIds=[machine_id])

    with ended_if_it_fails(file, machine_id, end, tell=tell):
        tell("wipe token, keys and histories")
        wipe(file, str(address))
        tell(f"make the image {name}: some minutes")
        image_id = _make_image(ec2, file, kind, machine_id, name)
        end()
    removal = f"aws ec2 deregister-image --delete-associated-snapshots --image-id {image_id}"
    return BakedImage(image_id, name, kind.name, f"ImageId: {image_id}", removal)


def _make_image(ec2: Any, file: ClusterFile, kind: NodeType, machine_id: str, name: str) -> str:
    with aws_errors(f"making an image of {machine_id}"):
        image_id = ec2.create_image(
            InstanceId=machine_id,
            Name=name,
            Description=f"scaletrain: {kind.name} of {file.name}, set up",
            TagSpecifications=[{"ResourceType": "image", "Tags": tags_of(file.name)}],
        )["ImageId"]
        ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 15, "MaxAttempts": 160})
        disks = ec2.describe_images(ImageIds=[image_id])["Images"][0]["BlockDeviceMappings"]
        snapshots = [disk["Ebs"]["SnapshotId"] for disk in disks if "SnapshotId" in disk.get("Ebs", {})]
        if snapshots:
            ec2.create_tags(Resources=snapshots, Tags=tags_of(file.name))
    return str(image_id)


def _find_worker(ec2: Any, file: ClusterFile, kind: NodeType) -> dict[str, Any]:
    filters = [
        {"Name": "tag:ray-cluster-name", "Values": [file.name]},
        {"Name": "tag:ray-user-node-type", "Values": [kind.name]},
        {"Name": "tag:ray-node-status", "Values": ["up-to-date"]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    with aws_errors("looking for a machine that is set up"):
        found = ec2.describe_instances(Filters=filters)["Reservations"]
    if not found:
        raise none_is_set_up(file, kind)
    machine: dict[str, Any] = found[0]["Instances"][0]
    return machine

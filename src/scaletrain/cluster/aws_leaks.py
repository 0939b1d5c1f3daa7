"""What an AWS account pays for: what is left of clusters that are gone, and heads, found by our tag or Ray's."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from scaletrain.cluster.aws_account import TAG, Account, aws_errors
from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.leaks import Costs, Leak, Machine, living_clusters, remove_each

_RAY_TAG = "ray-cluster-name"
_GONE = ("shutting-down", "terminated")
_RUNS = ("pending", "running")


def find_costs(account: Account, cluster: str | None = None, *, images_in_use: Collection[str] | None = None) -> Costs:
    """Return what is left over from one cluster, or from every one of the region that carries our or Ray's tags.

    And the clusters whose head starts or runs. Prepared images are looked at where `images_in_use` has the ids of those
    that are still wanted.
    """
    ec2 = account.client("ec2")
    with aws_errors("looking for what costs money"):
        machines = list(_machines(ec2))
        heads = {_seen_by_ray_in(machine) for _, machine in machines if _is_living_head(machine)}
        leaks = [
            Leak("machine", machine["InstanceId"], name, f"{machine['InstanceType']}, {machine['State']['Name']}")
            for name, machine in machines
            if _seen_by_ray_in(machine) not in heads
        ]
        leaks += _loose_parts(ec2)
        if images_in_use is not None:
            leaks += _images(ec2, images_in_use)
    running = [
        Machine(each["InstanceId"], _seen_by_ray_in(each), "", _is_living_head(each), each["LaunchTime"])
        for _, each in machines
        if each["State"]["Name"] in _RUNS
    ]
    return Costs([leak for leak in leaks if cluster in (None, leak.cluster)], living_clusters(running, cluster))


def remove_leaks(account: Account, leaks: list[Leak], *, tell: Callable[[str], None]) -> None:
    """Remove them for good."""
    ec2 = account.client("ec2")

    def remove(leak: Leak) -> None:
        with aws_errors(f"removing {leak.kind} {leak.id}"):
            if leak.kind == "machine":
                ec2.terminate_instances(InstanceIds=[leak.id])
            elif leak.kind == "disk":
                ec2.delete_volume(VolumeId=leak.id)
            elif leak.kind == "address":
                ec2.release_address(AllocationId=leak.id)
            elif leak.kind == "image":
                _remove_image(ec2, leak.id)
            else:
                ec2.delete_network_interface(NetworkInterfaceId=leak.id)

    remove_each(leaks, remove, tell=tell)
    machines = [leak.id for leak in leaks if leak.kind == "machine"]
    if machines:
        tell("wait until the machines are gone")
        with aws_errors("waiting for the machines to go"):
            ec2.get_waiter("instance_terminated").wait(
                InstanceIds=machines, WaiterConfig={"Delay": 5, "MaxAttempts": 120}
            )


def images_of(file: ClusterFile) -> set[str]:
    """Return the ids of the images that a file's machines start from."""
    return {str(kind.node_config.get("ImageId", "")) for kind in file.node_types}


def _machines(ec2: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for page in ec2.get_paginator("describe_instances").paginate():
        for reservation in page["Reservations"]:
            for machine in reservation["Instances"]:
                name = _cluster_of(machine.get("Tags"))
                if name is not None and machine["State"]["Name"] not in _GONE:
                    yield name, machine


def _is_living_head(machine: dict[str, Any]) -> bool:
    tags = {tag["Key"]: tag["Value"] for tag in machine.get("Tags", ())}
    return tags.get("ray-node-type") == "head" and machine["State"]["Name"] in _RUNS


def _seen_by_ray_in(machine: dict[str, Any]) -> str:
    """The cluster whose head sees the machine: no head does once it was taken out to make an image of it."""
    tags: dict[str, str] = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
    return tags.get(_RAY_TAG) or tags[TAG]


def _loose_parts(ec2: Any) -> Iterator[Leak]:
    loose = [{"Name": "status", "Values": ["available"]}]
    for page in ec2.get_paginator("describe_volumes").paginate(Filters=loose):
        for volume in page["Volumes"]:
            if (name := _cluster_of(volume.get("Tags"))) is not None:
                yield Leak("disk", volume["VolumeId"], name, f"{volume['Size']} GB, not attached")
    for page in ec2.get_paginator("describe_network_interfaces").paginate(Filters=loose):
        for interface in page["NetworkInterfaces"]:
            if (name := _cluster_of(interface.get("TagSet"))) is not None:
                yield Leak("network interface", interface["NetworkInterfaceId"], name, "not attached")
    for address in ec2.describe_addresses()["Addresses"]:
        name = _cluster_of(address.get("Tags"))
        if name is not None and not address.get("AssociationId"):
            yield Leak("address", address["AllocationId"], name, f"{address['PublicIp']}, leads nowhere")


def _images(ec2: Any, in_use: Collection[str]) -> Iterator[Leak]:
    for image in ec2.describe_images(Owners=["self"], Filters=[{"Name": "tag-key", "Values": [TAG]}])["Images"]:
        name = _cluster_of(image["Tags"])
        if name is not None and image["ImageId"] not in in_use:
            yield Leak("image", image["ImageId"], name, f"{image['Name']}, not named in the file")


def _remove_image(ec2: Any, image_id: str) -> None:
    """An image costs nothing; what costs is the snapshots that it is made of, which stay when it goes."""
    disks = ec2.describe_images(ImageIds=[image_id])["Images"][0]["BlockDeviceMappings"]
    ec2.deregister_image(ImageId=image_id)
    for disk in disks:
        if "SnapshotId" in disk.get("Ebs", {}):
            ec2.delete_snapshot(SnapshotId=disk["Ebs"]["SnapshotId"])


def _cluster_of(tags: list[dict[str, str]] | None) -> str | None:
    found = {tag["Key"]: tag["Value"] for tag in tags or ()}
    return found.get(TAG) or found.get(_RAY_TAG)

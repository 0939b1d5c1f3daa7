"""`scaletrain cluster image`: turns a worker that is set up into an image, so that later ones need no installation.

A worker, never the head: its runs would end. The machine is first taken out of its cluster's sight (Ray then starts a
new one where it needs one), then wiped of everything that is secret or its own, imaged, and terminated.
"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scaletrain.cluster.aws_account import Account, aws_errors, tags_of
from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.errors import ClusterError, ConfigError

# Run on the machine by `bash -s`; ROOT is empty there. What cloud-init made (host keys, the key that opens the
# machine) it makes anew at the first start from the image.
WIPE = r"""
set -euo pipefail
ROOT=${ROOT:-}
command -v ray >/dev/null && ray stop --force >/dev/null 2>&1 || true
for home in "$ROOT"/root "$ROOT"/home/*; do
  [ -d "$home" ] || continue
  rm -rf "$home"/.ray "$home"/ray_bootstrap_* "$home"/.aws "$home"/.cache/huggingface
  rm -f "$home"/.netrc "$home"/.git-credentials
  rm -f "$home"/.*_history "$home"/.ssh/authorized_keys "$home"/.ssh/known_hosts "$home"/.ssh/id_*
done
rm -f "$ROOT"/etc/ssh/ssh_host_*
rm -rf "$ROOT"/tmp/ray "$ROOT"/tmp/ray_* "$ROOT"/var/log/journal/*
rm -rf "$ROOT"/var/lib/cloud/instances "$ROOT"/var/lib/cloud/instance
find "$ROOT"/var/log -type f -exec truncate -s 0 {} + 2>/dev/null || true
: >"$ROOT"/etc/machine-id
sync
echo wiped
"""


@dataclass(frozen=True)
class BakedImage:
    """A prepared image and the node type it was made for."""

    image_id: str
    name: str
    node_type: str

    def record(self) -> dict[str, str]:
        """The image for --json."""
        return {"image_id": self.image_id, "name": self.name, "node_type": self.node_type}

    def advice(self, file: ClusterFile) -> str:
        """What to do with it."""
        return (
            f"In {file.path}, for {self.node_type} (and types with the same hardware), write:\n"
            f"      ImageId: {self.image_id}\n"
            f"then: ray up {file.path}. Machines that run stay as they are. To remove the image: aws ec2 "
            f"deregister-image --delete-associated-snapshots --image-id {self.image_id}"
        )


def bake_image(
    account: Account,
    file: ClusterFile,
    node_type: str | None,
    *,
    tell: Callable[[str], None],
    wipe: Callable[[ClusterFile, str], None] | None = None,
) -> BakedImage:
    """Make an image of a running worker of a type (the first with GPUs by default) and terminate that worker.

    Raises ClusterError where none is set up. `wipe` cleans the machine at an address; over SSH by default.
    """
    kind = _choose(file, node_type)
    ec2 = account.client("ec2")
    machine = _find_worker(ec2, file, kind)
    machine_id, address = str(machine["InstanceId"]), machine.get("PublicIpAddress") or machine["PrivateIpAddress"]
    name = f"{file.name}-{kind.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    tell(f"take {machine_id} out of the cluster")
    with aws_errors(f"taking {machine_id} out of the cluster"):
        ec2.create_tags(
            Resources=[machine_id],
            Tags=[{"Key": "ray-cluster-name", "Value": f"{file.name}-image"}, {"Key": "Name", "Value": name}],
        )
    tell("wipe token, keys and histories")
    (wipe or wipe_over_ssh)(file, str(address))
    tell(f"make the image {name}: some minutes")
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
        ec2.terminate_instances(InstanceIds=[machine_id])
    return BakedImage(str(image_id), name, kind.name)


def wipe_over_ssh(file: ClusterFile, address: str) -> None:
    """Run WIPE on a machine as root; afterwards nobody can log in there any more."""
    key = ["-i", str(file.ssh_private_key)] if file.ssh_private_key else []
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20"]
    command = ["ssh", *key, *options, "-o", "BatchMode=yes", f"{file.ssh_user}@{address}", "sudo -n bash -ls"]
    try:
        done = subprocess.run(command, input=WIPE, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{address} could not be wiped within 300 s; no image was made") from error
    if done.returncode != 0 or "wiped" not in done.stdout:
        raise ClusterError(
            f"{address} could not be wiped (ssh exit code {done.returncode}: {done.stderr.strip()[-300:]}), so no "
            "image was made; terminate the machine: it is out of its cluster already"
        )


def _choose(file: ClusterFile, name: str | None) -> NodeType:
    if file.provider != "aws":
        raise ConfigError(f"{file.path}: images are made on AWS only, this file is for {file.provider}")
    if name is None:
        return next((kind for kind in file.workers if kind.gpus), file.workers[0])
    for kind in file.workers:
        if kind.name == name:
            return kind
    raise ConfigError(f"--node-type: got {name}; workers are {', '.join(kind.name for kind in file.workers)}")


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
        raise ClusterError(
            f"no {kind.name} of {file.name} runs and is set up; set min_workers: 1 for it, run `ray up {file.path}`, "
            f"wait until `ray exec {file.path} 'ray status'` shows it, and try again"
        )
    machine: dict[str, Any] = found[0]["Instances"][0]
    return machine

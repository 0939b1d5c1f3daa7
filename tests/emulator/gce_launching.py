"""Helpers of the tests on the emulated Google Cloud: launch machines, make accounts and roles, call as a machine."""

import itertools
import subprocess
from typing import Any

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.errors import ClusterError

UBUNTU = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_NUMBERS = itertools.count(1)


def public_key(cloud: EmulatedCloud) -> str:
    """Make the key of the tests, once per cloud; the private part lies on the laptop."""
    path = cloud.laptop_home / "key"
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return (cloud.laptop_home / "key.pub").read_text().strip()


def body(cloud: EmulatedCloud, **more: Any) -> dict[str, Any]:
    """A launch that Compute Engine takes, with these fields in place of its own."""
    return {
        "name": f"m{next(_NUMBERS)}",
        "machineType": f"zones/{zone(cloud)}/machineTypes/n2-standard-4",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": UBUNTU}}],
        "networkInterfaces": [
            {
                "network": "global/networks/default",
                "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}],
            }
        ],
        "metadata": {"items": [{"key": "ssh-keys", "value": f"ubuntu:{public_key(cloud)}"}]},
        **more,
    }


def zone(cloud: EmulatedCloud) -> str:
    return f"{cloud.region}-a"


def insert(cloud: EmulatedCloud, **more: Any) -> Any:
    """Launch a machine; returns the operation."""
    return cloud.call("compute", "instances.insert", zone=zone(cloud), body=body(cloud, **more))


def launch(cloud: EmulatedCloud, **more: Any) -> Instance:
    """Launch a machine and wait until its sshd runs."""
    operation = insert(cloud, **more)
    assert "error" not in operation, operation
    name = operation["targetLink"].rpartition("/")[2]
    wait_for(lambda: name in cloud.machines(), f"{name} is on")
    listening = ["sh", "-c", "ss -ltn | grep -q :22"]
    wait_for(lambda: cloud.on_machine(find(cloud, name), listening).returncode == 0, f"sshd of {name}")
    wait_for(lambda: find(cloud, name).state == "running", f"{name} runs")
    return find(cloud, name)


def find(cloud: EmulatedCloud, name: str) -> Instance:
    return next(each for each in cloud.instances() if each.id == name)


def refusal(cloud: EmulatedCloud, **more: Any) -> str:
    """Return how a launch is refused: status and reason."""
    try:
        insert(cloud, **more)
    except ClusterError as error:
        return " ".join(str(error).split(": ")[1].split()[:2])
    raise AssertionError("it was not refused")


def ssh(cloud: EmulatedCloud, instance: Instance, command: str, *, public: bool = True) -> Any:
    """Run a command by SSH from the laptop."""
    address = instance.public_address if public else instance.address
    quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    limits = ["-o", "ConnectTimeout=3", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    key = str(cloud.laptop_home / "key")
    return cloud.laptop(["ssh", *quiet, *limits, "-i", key, f"ubuntu@{address}", command], timeout_s=30)


def make_account(cloud: EmulatedCloud, name: str) -> str:
    """Make a service account and return its address."""
    made = cloud.call(
        "iam", "projects.serviceAccounts.create", name=f"projects/{cloud.project}", body={"accountId": name}
    )
    return str(made["email"])


def make_role(cloud: EmulatedCloud, name: str, *permissions: str) -> str:
    """Make a role of the project's own and return its name."""
    role = {"roleId": name, "role": {"includedPermissions": list(permissions)}}
    made = cloud.call("iam", "projects.roles.create", parent=f"projects/{cloud.project}", body=role)
    return str(made["name"])


def bind(cloud: EmulatedCloud, role: str, email: str, *, condition: str = "") -> None:
    """Give a service account a role in the project, under a condition if there is one."""
    options = {"options": {"requestedPolicyVersion": 3}}
    policy = cloud.call("cloudresourcemanager", "projects.getIamPolicy", resource=cloud.project, body=options)
    binding = {"role": role, "members": [f"serviceAccount:{email}"]}
    if condition:
        binding["condition"] = {"title": "when", "expression": condition}
    wanted = {**policy, "version": 3, "bindings": [*policy["bindings"], binding]}
    cloud.call("cloudresourcemanager", "projects.setIamPolicy", resource=cloud.project, body={"policy": wanted})


def said(cloud: EmulatedCloud, instance: Instance, program: str) -> str:
    """Run a program with Google's clients on a machine, and return what it printed last, or its error."""
    start = "from googleapiclient.discovery import build; from google.cloud import storage\n"
    done = cloud.on_machine(instance, ["/opt/scaletrain/venv/bin/python", "-c", start + program])
    return str(done.stdout.strip().splitlines()[-1])


def metadata(cloud: EmulatedCloud, instance: Instance, path: str, *options: str) -> tuple[int, str]:
    """Return the status and the body of an item of the metadata server."""
    url = f"http://metadata.google.internal/computeMetadata/v1/{path}"
    flavor = () if options else ("-H", "Metadata-Flavor: Google")
    command = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", *flavor, *options, url]
    text, _, status = cloud.on_machine(instance, command).stdout.rpartition("\n")
    return int(status), text

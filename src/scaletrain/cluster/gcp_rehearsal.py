"""What a cluster file takes for granted in a Google Cloud project, made in the emulated one so that it runs as it is.

Each thing that is made is told: whether the real project has it is for `scaletrain cluster check` to say.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.gcp_account import last_part
from scaletrain.cluster.gcp_machines import zone_of
from scaletrain.cluster.gcp_network import rules_of
from scaletrain.cluster.gcp_plan import Wanted, account_address
from scaletrain.cluster.gcp_policies import (
    HEAD_PERMISSIONS,
    MACHINES_PERMISSIONS,
    USE_ACCOUNT,
    Right,
    bucket_rights,
    project_rights,
    with_rights,
)
from scaletrain.cluster.gcp_rights import account_of, accounts_of, bucket_name
from scaletrain.cluster.gcp_roles import RAYS_ACCOUNT_ID
from scaletrain.cluster.rehearsal_home import link_files_of_home
from scaletrain.emulator.emulated_cloud import EmulatedCloud
from scaletrain.emulator.google_cloud import PROJECT_NUMBER
from scaletrain.errors import ClusterError


def furnish(cloud: EmulatedCloud, file: ClusterFile) -> list[str]:
    """Make what the file names, by the very names, and return one line for each assumption."""
    _check_machine_types(cloud, file)
    wanted = _wanted(cloud, file)
    return [
        *_network(cloud, file, wanted),
        *_accounts(cloud, file, wanted),
        *_bucket(cloud, file, wanted),
        *link_files_of_home(cloud.laptop_home, file),
    ]


def _wanted(cloud: EmulatedCloud, file: ClusterFile) -> Wanted:
    prefix = (file.bucket_root or "").removeprefix("gs://").partition("/")[2]
    return Wanted(
        cluster=file.name,
        project_id=cloud.project,
        project_number=PROJECT_NUMBER,
        region=cloud.region,
        zone=zone_of(file),
        bucket=bucket_name(file) or "none",
        prefix=prefix or "scaletrain",
        ssh_user=file.ssh_user,
        ssh_from=(f"{cloud.laptop_address}/32",),
        network="default",
        subnet="",
        public_key=lambda: "",
    )


def _check_machine_types(cloud: EmulatedCloud, file: ClusterFile) -> None:
    zone = zone_of(file)
    known = {each["name"] for each in cloud.call("compute", "machineTypes.list", zone=zone)["items"]}
    kinds = [each for each in file.node_types if each.name == file.head_node_type or each.max_workers > 0]
    unknown = [
        f"{each.name} ({each.instance_type})" for each in kinds if last_part(each.instance_type or "") not in known
    ]
    if unknown:
        raise ClusterError(
            f"{zone} has no such machine type: {', '.join(unknown)}; choose one that it has, or another zone"
        )


def _network(cloud: EmulatedCloud, file: ClusterFile, wanted: Wanted) -> Iterator[str]:
    """Subnets of the default network, and the rules of init for each tag; without a tag the network's own hold."""
    interfaces = [each for kind in file.node_types for each in kind.node_config.get("networkInterfaces") or ()]
    for index, name in enumerate(
        sorted({last_part(str(each.get("subnetwork", ""))) for each in interfaces} - {"", "default"})
    ):
        body = {"name": name, "network": "global/networks/default", "ipCidrRange": f"10.{240 + index}.0.0/20"}
        cloud.call("compute", "subnetworks.insert", region=cloud.region, body=body)
        yield f"subnet {name} is in the default network"
    tags = {str(tag) for kind in file.node_types for tag in (kind.node_config.get("tags") or {}).get("items") or ()}
    for tag in sorted(tags):
        for rule, _ in rules_of(replace(wanted, cluster=tag)):
            cloud.call("compute", "firewalls.insert", body=rule)
        yield f"firewall rules for the tag {tag} admit SSH from you, everything among its machines, and nothing else"


def _accounts(cloud: EmulatedCloud, file: ClusterFile, wanted: Wanted) -> Iterator[str]:
    """Accounts with the rights that `scaletrain cluster init` gives; machines that name none have none."""
    for account in sorted({*accounts_of(file), account_address(RAYS_ACCOUNT_ID, file.raw["provider"]["project_id"])}):
        body = {"accountId": account.partition("@")[0], "serviceAccount": {"displayName": "rehearsed"}}
        cloud.call("iam", "projects.serviceAccounts.create", name=f"projects/{cloud.project}", body=body)
    rays = f"projects/{cloud.project}/serviceAccounts/{account_address(RAYS_ACCOUNT_ID, cloud.project)}"
    cloud.call("iam", "projects.serviceAccounts.disable", name=rays, body={})
    yield f"Ray's own service account {RAYS_ACCOUNT_ID} is switched off"
    head = account_of(file.head.node_config)
    if not head:
        return
    for role, permissions in ((wanted.head_role, HEAD_PERMISSIONS), (wanted.machines_role, MACHINES_PERMISSIONS)):
        body = {
            "roleId": last_part(role),
            "role": {"title": role, "includedPermissions": list(permissions), "stage": "GA"},
        }
        cloud.call("iam", "projects.roles.create", parent=f"projects/{cloud.project}", body=body)
    rights = [replace(each, member=f"serviceAccount:{head}") for each in project_rights(wanted)]
    place = {"resource": cloud.project}
    policy = cloud.call(
        "cloudresourcemanager", "projects.getIamPolicy", **place, body={"options": {"requestedPolicyVersion": 3}}
    )
    body = {"policy": with_rights(policy, rights)}
    cloud.call("cloudresourcemanager", "projects.setIamPolicy", **place, body=body)
    for worker in sorted(set(accounts_of(file)) - {head}):
        name = f"projects/{cloud.project}/serviceAccounts/{worker}"
        body = {"policy": with_rights({}, [Right(USE_ACCOUNT, f"serviceAccount:{head}")])}
        cloud.call("iam", "projects.serviceAccounts.setIamPolicy", resource=name, body=body)
        yield f"service account {worker} has the rights that `scaletrain cluster init` gives to workers"
    yield f"service account {head} has the rights that `scaletrain cluster init` gives to the head"


def _bucket(cloud: EmulatedCloud, file: ClusterFile, wanted: Wanted) -> Iterator[str]:
    name = bucket_name(file)
    if not name:
        return
    uniform = {"uniformBucketLevelAccess": {"enabled": True}}
    body: dict[str, Any] = {"name": name, "location": cloud.region.upper(), "iamConfiguration": uniform}
    cloud.call("storage", "buckets.insert", body=body)
    owner = account_of(file.head.node_config)
    given = {f"serviceAccount:{wanted.head_account}": owner}
    workers = sorted(set(accounts_of(file)) - {owner})
    rights = [
        replace(right, member=f"serviceAccount:{account}")
        for right in bucket_rights(wanted)
        for account in ([given[right.member]] if right.member in given else workers)
        if account
    ]
    policy = cloud.call("storage", "buckets.getIamPolicy", bucket=name, optionsRequestedPolicyVersion=3)
    cloud.call("storage", "buckets.setIamPolicy", bucket=name, body=with_rights(policy, rights))
    yield f"bucket {name} is in {cloud.region}"

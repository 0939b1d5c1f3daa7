"""`scaletrain cluster init aws`: plans what a cluster file needs in an AWS account and here."""

from dataclasses import dataclass
from pathlib import Path

from scaletrain.cluster import auth_token, places
from scaletrain.cluster.aws_account import TAG, Account, aws_errors, connect, own_region
from scaletrain.cluster.aws_bucket import bucket_removal_steps, bucket_steps
from scaletrain.cluster.aws_network import (
    endpoint_step,
    find_subnet,
    find_vpc,
    key_pair_exists,
    key_pair_step,
    network_removal_steps,
    security_group_step,
)
from scaletrain.cluster.aws_plan import Found, Wanted
from scaletrain.cluster.aws_profiles import waiting_step
from scaletrain.cluster.aws_roles import role_removal_steps, role_steps
from scaletrain.cluster.init import (
    empty_steps,
    fill_step,
    find_project,
    is_filled,
    left_behind,
    read_file,
    rewrite,
    secret_removal_steps,
    secret_steps,
    split_bucket_url,
    ssh_addresses,
)
from scaletrain.cluster.plan import Step, to_do
from scaletrain.errors import ClusterError, ConfigError


@dataclass(frozen=True)
class AwsRequest:
    """What the user asked for; None where the file or the account decides."""

    path: Path
    region: str | None = None
    bucket: str | None = None
    vpc_id: str | None = None
    ssh_from: tuple[str, ...] = ()


def plan_aws(request: AwsRequest) -> tuple[Account, list[Step]]:
    """Look at everything that the file needs and return what is to be done; changes nothing."""
    tree, current = read_file(request.path, provider="aws")
    account = connect(_region(request, current))
    cluster = tree["cluster_name"]
    bucket, prefix = _bucket(request, account, current)
    vpc_id = find_vpc(account, request.vpc_id)
    kinds = tree["available_node_types"].values()
    types = {kind["node_config"]["InstanceType"] for kind in kinds if "InstanceType" in kind["node_config"]}
    wanted = Wanted(
        cluster=cluster,
        region=account.region,
        bucket=bucket,
        prefix=prefix,
        ssh_from=ssh_addresses(request.ssh_from),
        vpc_id=vpc_id,
        subnet_id=find_subnet(account, vpc_id, types, current=current.get("subnet")),
        public_key=lambda: Path(f"{auth_token.key_path(cluster)}.pub").read_text(),
    )
    _refuse_to_leave_machines(request.path, account, cluster, current.get("region"))
    if key_pair_exists(account, cluster) and not auth_token.key_path(cluster).exists():
        raise ConfigError(
            f"EC2 has a key pair {cluster}, but its private half is not in {auth_token.key_path(cluster)}; copy it "
            f"from the machine where init ran first, or remove the pair: aws ec2 delete-key-pair --key-name {cluster}"
        )
    found = Found()
    head_config = tree["available_node_types"][tree["head_node_type"]]["node_config"]
    profiles = [wanted.head_role, wanted.worker_role]
    steps = [
        *secret_steps(cluster),
        *bucket_steps(account, wanted),
        key_pair_step(account, wanted),
        security_group_step(account, wanted, found),
        endpoint_step(account, wanted),
        *(roles := role_steps(account, wanted, found)),
        _fill_aws(request.path, wanted, found),
    ]
    if to_do(roles):  # last: whatever comes of it, all else is done
        steps.append(waiting_step(account, profiles, node_config=head_config, subnet_id=wanted.subnet_id))
    return account, steps


def plan_destroy_aws(request: AwsRequest, *, with_objects: bool) -> tuple[Account, list[Step]]:
    """Look for everything that init made and return what is to be removed; changes nothing.

    Raises ClusterError while machines of the cluster run.
    """
    tree, current = read_file(request.path, provider="aws")
    account = connect(_region(request, current))
    cluster = tree["cluster_name"]
    _refuse_to_leave_machines(request.path, account, cluster, current.get("region"))
    if machines := running_machines(account, cluster):
        raise ClusterError(
            f"{', '.join(machines)} still run; first: ray down {request.path}; machines that it does not see are ended "
            f"by `scaletrain cluster sweep-leaks {request.path} --delete`"
        )
    bucket, prefix = _bucket(request, account, current)
    vpc_id = find_vpc(account, request.vpc_id)
    wanted = Wanted(cluster, account.region, bucket, prefix, (), vpc_id, "", lambda: "")
    steps = [
        *network_removal_steps(account, wanted),
        *role_removal_steps(account, wanted),
        *bucket_removal_steps(account, wanted, with_objects=with_objects),
        *secret_removal_steps(cluster),
        *empty_steps(request.path, current),
    ]
    return account, steps


def running_machines(account: Account, cluster: str, *, region: str | None = None) -> list[str]:
    """Return the ids of the machines that bear Ray's tag of a cluster, or ours, and that are not gone."""
    alive = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
    found = set()
    with aws_errors(f"looking for machines in {region or account.region}"):
        pager = account.client("ec2", region=region).get_paginator("describe_instances")
        for tag in ("ray-cluster-name", TAG):
            for page in pager.paginate(Filters=[{"Name": f"tag:{tag}", "Values": [cluster]}, alive]):
                found |= {str(each["InstanceId"]) for group in page["Reservations"] for each in group["Instances"]}
    return sorted(found)


def _refuse_to_leave_machines(path: Path, account: Account, cluster: str, old_region: str | None) -> None:
    """Ray looks for machines in the file's region only: those in another one would run on with nobody to end them."""
    if old_region is None or not is_filled(old_region) or old_region == account.region:
        return
    if machines := running_machines(account, cluster, region=old_region):
        raise left_behind(path, old_region, machines, option="--region")


def _region(request: AwsRequest, current: dict[str, str]) -> str:
    if request.region is not None:
        return request.region
    return current["region"] if is_filled(current.get("region")) else own_region()


def _bucket(request: AwsRequest, account: Account, current: dict[str, str]) -> tuple[str, str]:
    """Return the bucket's name and the prefix of the storage root in it."""
    url = request.bucket
    if url is None and is_filled(current.get("bucket")):
        url = current["bucket"]
    if url is None:
        url = f"scaletrain-{account.account_id}-{account.region}/scaletrain"
    return split_bucket_url(url, scheme="s3://")


def _fill_aws(path: Path, wanted: Wanted, found: Found) -> Step:
    values: dict[str, str | list[str]] = {
        "bucket": wanted.bucket_root,
        "region": wanted.region,
        "ssh_key": str(auth_token.key_path(wanted.cluster)),
        "key_name": wanted.cluster,
        "head_profile": wanted.head_role,
        "worker_profile": wanted.worker_role,
        "subnet": wanted.subnet_id,
        "cluster": wanted.cluster,
        "token": str(auth_token.token_path(wanted.cluster)),
        "project": str(find_project(path)),
    }
    if "security_group" not in found.ids:
        places.fill_places(path.read_text(encoding="utf-8"), {**values, "security_group": ""}, source=str(path))
        return Step(
            str(path),
            "change",
            "fill its places",
            lambda: rewrite(path, {**values, "security_group": found.ids["security_group"]}),
        )
    return fill_step(path, {**values, "security_group": found.ids["security_group"]})

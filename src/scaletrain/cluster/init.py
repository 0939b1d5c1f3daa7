"""`scaletrain cluster init`: plans what a cluster file needs, in the account and here, and fills the file."""

import ipaddress
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaletrain.cluster import auth_token, places
from scaletrain.cluster.aws_account import Account, aws_errors, connect
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
from scaletrain.cluster.aws_plan import Found, Step, Wanted
from scaletrain.cluster.aws_roles import role_removal_steps, role_steps
from scaletrain.cluster.cluster_file import UNFILLED, read_tree
from scaletrain.cluster.schema import schema_problems
from scaletrain.errors import ClusterError, ConfigError

_ADDRESS_PAGE = "https://checkip.amazonaws.com"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,28}[a-z0-9]")


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
    tree, current = _read(request.path, provider="aws")
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
        ssh_from=_ssh_from(request.ssh_from),
        vpc_id=vpc_id,
        subnet_id=find_subnet(account, vpc_id, types, current=current.get("subnet")),
        public_key=lambda: Path(f"{auth_token.key_path(cluster)}.pub").read_text(),
    )
    if key_pair_exists(account, cluster) and not auth_token.key_path(cluster).exists():
        raise ConfigError(
            f"EC2 has a key pair {cluster}, but its private half is not in {auth_token.key_path(cluster)}; copy it "
            f"from the machine where init ran first, or remove the pair: aws ec2 delete-key-pair --key-name {cluster}"
        )
    found = Found()
    steps = [
        *_secret_steps(cluster),
        *bucket_steps(account, wanted),
        key_pair_step(account, wanted),
        security_group_step(account, wanted, found),
        endpoint_step(account, wanted),
        *role_steps(account, wanted, found),
        _fill_aws(request.path, wanted, found),
    ]
    return account, steps


def plan_destroy_aws(request: AwsRequest, *, with_objects: bool) -> tuple[Account, list[Step]]:
    """Look for everything that init made and return what is to be removed; changes nothing.

    Raises ClusterError while machines of the cluster run.
    """
    tree, current = _read(request.path, provider="aws")
    account = connect(_region(request, current))
    cluster = tree["cluster_name"]
    if machines := running_machines(account, cluster):
        raise ClusterError(f"{', '.join(machines)} still run; first: ray down {request.path}")
    bucket, prefix = _bucket(request, account, current)
    vpc_id = find_vpc(account, request.vpc_id)
    wanted = Wanted(cluster, account.region, bucket, prefix, (), vpc_id, "", lambda: "")
    steps = [
        *network_removal_steps(account, wanted),
        *role_removal_steps(account, wanted),
        *bucket_removal_steps(account, wanted, with_objects=with_objects),
    ]
    if auth_token.folder_of(cluster).is_dir():
        what = f"token and SSH key in {auth_token.folder_of(cluster)}"
        steps.append(Step(what, "remove", "", lambda: auth_token.remove_secrets(cluster)))
    if filled := [name for name, value in current.items() if not value.startswith(UNFILLED)]:
        empty = {name.partition("/")[0]: f"{UNFILLED}, run: scaletrain cluster init aws" for name in filled}
        steps.append(
            Step(str(request.path), "change", "empty its places", lambda: _do_rewrite(request.path, dict(empty)))
        )
    return account, steps


def plan_local(
    path: Path, *, head: str, workers: Sequence[str], ssh_user: str, ssh_key: Path, bucket: str
) -> list[Step]:
    """Return what a file for machines of one's own needs: the token, and its places filled."""
    tree, _ = _read(path, provider="local")
    cluster = tree["cluster_name"]
    if not ssh_key.expanduser().is_file():
        raise ConfigError(f"--ssh-key: there is no {ssh_key}; name the private key that opens all machines")
    values: dict[str, str | list[str]] = {
        "bucket": bucket,
        "head_ip": head,
        "worker_ips": list(workers),
        "ssh_user": ssh_user,
        "ssh_key": str(ssh_key.expanduser()),
        "token": str(auth_token.token_path(cluster)),
        "project": str(find_project(path)),
    }
    return [_secret_steps(cluster)[0], _fill_step(path, values)]


def running_machines(account: Account, cluster: str) -> list[str]:
    """Return the ids of the machines that Ray started for a cluster and that are not gone."""
    filters = [
        {"Name": "tag:ray-cluster-name", "Values": [cluster]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    with aws_errors("looking for machines"):
        pages = account.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
        return [
            str(machine["InstanceId"])
            for page in pages
            for reservation in page["Reservations"]
            for machine in reservation["Instances"]
        ]


def find_project(path: Path) -> Path:
    """Return the nearest folder above a cluster file that holds scaletrain's project."""
    for folder in path.absolute().parents:
        if (folder / "pyproject.toml").is_file() and (folder / "src/scaletrain").is_dir():
            return folder
    raise ConfigError(
        f"{path}: no folder above it holds scaletrain's pyproject.toml and src; put the file into the cluster/ folder "
        "of a checkout"
    )


def own_address() -> str:
    """Return the address from which this machine is seen on the internet, as 203.0.113.7/32."""
    remedy = "say it yourself, as --ssh-from 203.0.113.7/32"
    try:
        with urllib.request.urlopen(_ADDRESS_PAGE, timeout=10) as answer:
            text = answer.read(100).decode().strip()
        return str(ipaddress.ip_network(text))
    except (urllib.error.URLError, TimeoutError) as error:
        raise ConfigError(f"{_ADDRESS_PAGE} does not say from which address you come ({error}); {remedy}") from error
    except ValueError as error:
        raise ConfigError(f"{_ADDRESS_PAGE} answered with no address; {remedy}") from error


def _read(path: Path, *, provider: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the file's tree and what its places hold now (a list as its first entry)."""
    tree, problems = read_tree(path)
    problems += schema_problems(tree)
    if not problems and tree["provider"]["type"] != provider:
        problems.append(f"provider.type: got {tree['provider']['type']}; init {provider} fills files for {provider}")
    if not problems and not _NAME.fullmatch(tree["cluster_name"]):
        problems.append(f"cluster_name: got {tree['cluster_name']}; use 2 to 30 of a-z, 0-9 and -, as my-cluster")
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    written = places.find_places(path.read_text(encoding="utf-8"))
    return tree, {name: value.strip("[]\"'") for name, value in written.items()}


def _region(request: AwsRequest, current: dict[str, str]) -> str:
    if request.region is not None:
        return request.region
    if not current.get("region", UNFILLED).startswith(UNFILLED):
        return current["region"]
    import boto3

    region = boto3.Session().region_name
    if region is None:
        raise ConfigError("no region; give --region us-east-1 or set AWS_DEFAULT_REGION")
    return str(region)


def _bucket(request: AwsRequest, account: Account, current: dict[str, str]) -> tuple[str, str]:
    """Return the bucket's name and the prefix of the storage root in it."""
    url = request.bucket
    if url is None and not current.get("bucket", UNFILLED).startswith(UNFILLED):
        url = current["bucket"]
    if url is None:
        url = f"scaletrain-{account.account_id}-{account.region}/scaletrain"
    name, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
        raise ConfigError(f"--bucket: {name!r} is no bucket's name; use 3 to 63 of a-z, 0-9, . and -")
    return name, prefix or "scaletrain"


def _ssh_from(given: Sequence[str]) -> tuple[str, ...]:
    addresses = []
    for each in given or [own_address()]:
        try:
            network = ipaddress.ip_network(each)
        except ValueError as error:
            raise ConfigError(f"--ssh-from: {each!r} is no address; write 203.0.113.7/32 ({error})") from error
        if network.prefixlen == 0:
            raise ConfigError(f"--ssh-from: {each} is the whole world; give the address that you come from")
        addresses.append(str(network))
    return tuple(addresses)


def _secret_steps(cluster: str) -> list[Step]:
    token, key = auth_token.token_path(cluster), auth_token.key_path(cluster)

    def make_token() -> None:
        auth_token.ensure_token(cluster)

    def make_key() -> None:
        auth_token.ensure_key(cluster)

    return [
        Step(f"Ray's token, {token}", "")
        if token.exists()
        else Step(f"Ray's token, {token}", "make", "0600", make_token),
        Step(f"SSH key, {key}", "") if key.exists() else Step(f"SSH key, {key}", "make", "0600", make_key),
    ]


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
            lambda: _do_rewrite(path, {**values, "security_group": found.ids["security_group"]}),
        )
    return _fill_step(path, {**values, "security_group": found.ids["security_group"]})


def _fill_step(path: Path, values: dict[str, str | list[str]]) -> Step:
    text = path.read_text(encoding="utf-8")
    if places.fill_places(text, values, source=str(path)) == text:
        return Step(str(path), "", "filled")
    return Step(str(path), "change", "fill its places", lambda: _do_rewrite(path, values))


def _do_rewrite(path: Path, values: dict[str, str | list[str]]) -> None:
    places.rewrite(path, values)

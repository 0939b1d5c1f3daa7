"""May the head and the workers do what they must, and nobody else what they must not: bucket, roles and doors."""

from collections.abc import Iterator

from scaletrain.cluster.aws_account import Account, aws_errors, error_code
from scaletrain.cluster.aws_bucket import bucket_region
from scaletrain.cluster.aws_role_judge import RoleJudge
from scaletrain.cluster.cluster_file import ClusterFile, NodeType

_INIT = "run scaletrain cluster init aws"
_ON_OBJECTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")


def bucket_problems(account: Account, file: ClusterFile) -> Iterator[str]:
    """The bucket must be there, and in the machines' region."""
    if file.bucket_root is None:
        return
    name = bucket_name(file)
    s3 = account.client("s3")
    with aws_errors(f"looking at bucket {name}"):
        region = bucket_region(s3, name)
    if region is None:
        yield f"metadata.bucket: there is no bucket {name}; check the name, or {_INIT}"
    elif region != account.region:
        yield (
            f"metadata.bucket: {name} is in {region}, the machines in {account.region}: slow, and every byte costs; "
            f"use a bucket in {account.region}, or provider.region: {region}"
        )


def right_problems(account: Account, file: ClusterFile) -> Iterator[str]:
    """The head must be able to start workers and both must reach the bucket, each by its own profile."""
    judge = RoleJudge(account)
    seen: set[str] = set()
    for kind in file.node_types:
        profile = kind.node_config.get("IamInstanceProfile") or {}
        name = str(profile.get("Name") or str(profile.get("Arn", "")).rpartition("/")[2])
        is_head = kind.name == file.head_node_type
        if not name or (name in seen and not is_head):
            continue
        seen.add(name)
        who = "the head" if is_head else f"workers ({kind.name})"
        role = _role_of(account, name)
        if role is None:
            yield f"available_node_types.{kind.name}: there is no instance profile {name} with a role; {_INIT}"
            continue
        if file.bucket_root is not None:
            yield from _bucket_right_problems(judge, file, role, who)
        if is_head:
            yield from _head_right_problems(judge, file, role)


def door_problems(account: Account, file: ClusterFile) -> Iterator[str]:
    """Every security group must be there, shut to the world, and open within the cluster."""
    groups = sorted({each for kind in file.node_types for each in kind.node_config.get("SecurityGroupIds", ())})
    ec2 = account.client("ec2")
    with aws_errors("looking at the security groups"):
        filters = [{"Name": "group-id", "Values": groups}]
        found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"] if groups else []
    there = {group["GroupId"] for group in found}
    for group_id in groups:
        if group_id not in there:
            yield f"SecurityGroupIds: {account.region} has no group {group_id}; {_INIT}"
    within = False
    for group in found:
        for rule in group["IpPermissions"]:
            within = within or any(pair.get("GroupId") in there for pair in rule.get("UserIdGroupPairs", ()))
            ranges = [*rule.get("IpRanges", ()), *rule.get("Ipv6Ranges", ())]
            if any((each.get("CidrIp") or each.get("CidrIpv6")) in ("0.0.0.0/0", "::/0") for each in ranges):
                ports = f"port {rule['FromPort']}" if "FromPort" in rule else "every port"
                yield (
                    f"security group {group['GroupId']}: {ports} is open to the whole world; remove that rule, or "
                    f"{_INIT}"
                )
    if found and not within:
        yield f"security group {found[0]['GroupId']}: machines cannot reach one another; {_INIT}"


def subnet_zone(account: Account, kind: NodeType) -> str | None:
    """Return the zone of a type's subnet, or None where the file names none or several."""
    ids = kind.node_config.get("SubnetIds") or []
    if len(ids) != 1:
        return None
    with aws_errors("looking at the subnet"):
        filters = [{"Name": "subnet-id", "Values": ids}]
        subnets = account.client("ec2").describe_subnets(Filters=filters)["Subnets"]
    return str(subnets[0]["AvailabilityZone"]) if subnets else None


def subnet_problems(account: Account, file: ClusterFile) -> Iterator[str]:
    """Every subnet must be there, and give public addresses unless the file works with internal ones."""
    ids = sorted({each for kind in file.node_types for each in kind.node_config.get("SubnetIds", ())})
    if not ids:
        return
    with aws_errors("looking at the subnets"):
        filters = [{"Name": "subnet-id", "Values": ids}]
        found = {each["SubnetId"]: each for each in account.client("ec2").describe_subnets(Filters=filters)["Subnets"]}
    for subnet_id in ids:
        if subnet_id not in found:
            yield f"SubnetIds: {account.region} has no subnet {subnet_id}; {_INIT}"
        elif not found[subnet_id]["MapPublicIpOnLaunch"] and not file.raw["provider"].get("use_internal_ips"):
            yield f"SubnetIds: {subnet_id} gives machines no public address, so you cannot reach the head; name another"


def bucket_name(file: ClusterFile) -> str:
    """The name of the file's bucket."""
    return (file.bucket_root or "").removeprefix("s3://").partition("/")[0]


def _bucket_right_problems(judge: RoleJudge, file: ClusterFile, role: str, who: str) -> Iterator[str]:
    root = (file.bucket_root or "").removeprefix("s3://")
    prefix = root.partition("/")[2]
    arn = f"arn:{judge.account.partition}:s3:::"
    denied = judge.denied(role, _ON_OBJECTS, f"{arn}{root}/runs/probe")
    below = f"{prefix}/runs/" if prefix else "runs/"
    denied |= judge.denied(role, ["s3:ListBucket"], f"{arn}{bucket_name(file)}", {"s3:prefix": below})
    if denied:
        yield (
            f"rights: {who} may not use {file.bucket_root} (role {role}: {_listed(denied)}); {_INIT}, or allow it at "
            f"https://console.aws.amazon.com/iam/home#/roles/details/{role}"
        )


def _head_right_problems(judge: RoleJudge, file: ClusterFile, role: str) -> Iterator[str]:
    account = judge.account
    own = f"arn:{account.partition}:ec2:{account.region}:{account.account_id}"
    start = {"aws:RequestTag/ray-cluster-name": file.name, "ec2:MetadataHttpTokens": "required"}
    stop = {"ec2:ResourceTag/ray-cluster-name": file.name}
    denied = judge.denied(role, ["ec2:RunInstances"], f"{own}:instance/*", start)
    denied |= judge.denied(role, ["ec2:TerminateInstances", "ec2:CreateTags"], f"{own}:instance/*", stop)
    denied |= judge.denied(role, ["ec2:DescribeInstances"], "*")
    for name in sorted(_worker_profiles(file)):
        worker = _role_of(account, name)
        if worker is not None:
            arn = f"arn:{account.partition}:iam::{account.account_id}:role/{worker}"
            denied |= judge.denied(role, ["iam:PassRole"], arn, {"iam:PassedToService": "ec2.amazonaws.com"})
    for image in sorted({str(kind.node_config.get("ImageId", "")) for kind in file.workers}):
        if image.startswith("resolve:ssm:/aws/"):
            arn = f"arn:{account.partition}:ssm:{account.region}::parameter{image.removeprefix('resolve:ssm:')}"
            denied |= judge.denied(role, ["ssm:GetParameters"], arn)
    if denied:
        yield (
            f"rights: the head may not start and stop workers of {file.name} (role {role}: {_listed(denied)}); {_INIT}"
        )


def _worker_profiles(file: ClusterFile) -> set[str]:
    configs = [kind.node_config.get("IamInstanceProfile") or {} for kind in file.workers]
    return {str(each.get("Name") or str(each.get("Arn", "")).rpartition("/")[2]) for each in configs if each}


def _role_of(account: Account, profile: str) -> str | None:
    from botocore.exceptions import ClientError

    iam = account.client("iam")
    with aws_errors(f"looking at instance profile {profile}"):
        try:
            roles = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
        except ClientError as error:
            if error_code(error) == "NoSuchEntity":
                return None
            raise
    return str(roles[0]["RoleName"]) if roles else None


def _listed(denied: dict[str, str]) -> str:
    return ", ".join(f"{action} {reason}" for action, reason in sorted(denied.items()))

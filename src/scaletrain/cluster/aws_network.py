"""The doors of a cluster: a security group that admits SSH from named addresses only, a way to S3, and the SSH key."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from scaletrain.cluster.aws_account import Account, aws_errors, error_code, has_tag, tags_of
from scaletrain.cluster.aws_plan import Found, Wanted
from scaletrain.cluster.plan import Step
from scaletrain.errors import ConfigError

_SSH = "scaletrain: SSH"  # marks the rules that are ours; rules that the user added stay


def find_vpc(account: Account, vpc_id: str | None) -> str:
    """Return the given VPC, or the account's default one."""
    ec2 = account.client("ec2")
    with aws_errors("looking for the network"):
        if vpc_id is not None:
            filters = [{"Name": "vpc-id", "Values": [vpc_id]}]
        else:
            filters = [{"Name": "is-default", "Values": ["true"]}]
        vpcs = ec2.describe_vpcs(Filters=filters)["Vpcs"]
    if not vpcs:
        wanted = f"no VPC {vpc_id}" if vpc_id else "no default VPC"
        raise ConfigError(f"{wanted} in {account.region}; run `aws ec2 create-default-vpc`, or name one with --vpc")
    return str(vpcs[0]["VpcId"])


def find_subnet(account: Account, vpc_id: str, instance_types: Iterable[str], *, current: str | None) -> str:
    """Return a public subnet whose zone has every instance type; the one in use if it will do."""
    ec2 = account.client("ec2")
    needed = set(instance_types)
    with aws_errors("looking for a subnet"):
        found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc_id]}])["Subnets"]
        offers = zone_offers(ec2, needed)
    public = sorted(
        (each for each in found if each["MapPublicIpOnLaunch"]), key=lambda each: str(each["AvailabilityZone"])
    )
    if not public:
        raise ConfigError(
            f"{vpc_id} has no subnet that gives machines a public address, which `ray up` needs to reach the head; "
            "name another VPC with --vpc"
        )
    fit = [str(each["SubnetId"]) for each in public if needed <= offers.get(each["AvailabilityZone"], set())]
    if not fit:
        zones = sorted({str(each["AvailabilityZone"]) for each in public})
        shown = "; ".join(f"{zone} lacks {', '.join(sorted(needed - offers.get(zone, set())))}" for zone in zones)
        raise ConfigError(
            f"no zone of {account.region} has all of the file's instance types: {shown}; change the types"
        )
    return current if current in fit else fit[0]


def zone_offers(ec2: Any, instance_types: set[str]) -> dict[str, set[str]]:
    """Return for each zone which of the instance types it has."""
    offers: dict[str, set[str]] = {}
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": sorted(instance_types)}]
    )
    for page in pages:
        for offer in page["InstanceTypeOfferings"]:
            if offer["InstanceType"] in instance_types:
                offers.setdefault(offer["Location"], set()).add(offer["InstanceType"])
    return offers


def security_group_step(account: Account, wanted: Wanted, found: Found) -> Step:
    """Compare the security group with what it should admit: SSH from the named addresses, and itself."""
    ec2 = account.client("ec2")
    what = f"security group {wanted.cluster}"
    admits = f"SSH from {', '.join(wanted.ssh_from)} only, and everything within the cluster"
    with aws_errors(f"looking at {what}"):
        group = find_security_group(ec2, wanted)
    if group is None:

        def make() -> None:
            with aws_errors(f"making {what}"):
                made = ec2.create_security_group(
                    GroupName=wanted.cluster,
                    Description="scaletrain: machines of a training cluster",
                    VpcId=wanted.vpc_id,
                    TagSpecifications=[{"ResourceType": "security-group", "Tags": tags_of(wanted.cluster)}],
                )
                found.ids["security_group"] = made["GroupId"]
                rules = [_within(made["GroupId"]), *(_ssh(address) for address in wanted.ssh_from)]
                ec2.authorize_security_group_ingress(GroupId=made["GroupId"], IpPermissions=rules)

        return Step(what, "make", admits, make)
    group_id = found.ids["security_group"] = str(group["GroupId"])
    if not has_tag(group.get("Tags"), wanted.cluster):
        raise ConfigError(
            f"there is a security group {wanted.cluster} ({group_id}) already that is not this cluster's; choose "
            "another cluster_name"
        )
    remove, add = _rule_changes(group, wanted.ssh_from)
    if not remove and not add:
        return Step(what, "", admits)

    def change() -> None:
        with aws_errors(f"changing {what}"):
            if add:
                ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=add)
            if remove:
                ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=remove)

    return Step(what, "change", f"admit {admits}", change)


def endpoint_step(account: Account, wanted: Wanted) -> Step:
    """The way from the VPC to S3 that costs nothing and does not pass through the internet."""
    ec2 = account.client("ec2")
    what = f"S3 gateway endpoint of {wanted.vpc_id}"
    with aws_errors(f"looking at {what}"):
        if _endpoints(ec2, account, wanted):
            return Step(what, "")

    def make() -> None:
        with aws_errors(f"making {what}"):
            tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [wanted.vpc_id]}])["RouteTables"]
            ec2.create_vpc_endpoint(
                VpcEndpointType="Gateway",
                VpcId=wanted.vpc_id,
                ServiceName=f"com.amazonaws.{account.region}.s3",
                RouteTableIds=[table["RouteTableId"] for table in tables],
                TagSpecifications=[{"ResourceType": "vpc-endpoint", "Tags": tags_of(wanted.cluster)}],
            )

    return Step(what, "make", "free, and S3 stays off the internet", make)


def key_pair_step(account: Account, wanted: Wanted) -> Step:
    """Make the public half of this machine's SSH key known to EC2; the private half stays here."""
    ec2 = account.client("ec2")
    what = f"key pair {wanted.cluster}"
    with aws_errors(f"looking at {what}"):
        there = _key_pair(ec2, wanted.cluster)
    if there is not None:
        return Step(what, "")

    def make() -> None:
        with aws_errors(f"making {what}"):
            ec2.import_key_pair(
                KeyName=wanted.cluster,
                PublicKeyMaterial=wanted.public_key().encode(),
                TagSpecifications=[{"ResourceType": "key-pair", "Tags": tags_of(wanted.cluster)}],
            )

    return Step(what, "make", "the public half of your key", make)


def key_pair_exists(account: Account, cluster: str) -> bool:
    """Say whether EC2 knows a key of this cluster."""
    with aws_errors("looking at the key pair"):
        return _key_pair(account.client("ec2"), cluster) is not None


def network_removal_steps(account: Account, wanted: Wanted) -> list[Step]:
    """Say which doors go: those that carry the cluster's tag."""
    ec2 = account.client("ec2")
    steps = []
    with aws_errors("looking at the network"):
        group = find_security_group(ec2, wanted)
        endpoints = [each for each in _endpoints(ec2, account, wanted) if has_tag(each.get("Tags"), wanted.cluster)]
        pair = _key_pair(ec2, wanted.cluster)

    def remove_endpoints() -> None:
        with aws_errors("removing the S3 gateway endpoint"):
            ec2.delete_vpc_endpoints(VpcEndpointIds=[each["VpcEndpointId"] for each in endpoints])

    def remove_group() -> None:
        with aws_errors(f"removing security group {wanted.cluster}"):
            assert group is not None
            ec2.delete_security_group(GroupId=group["GroupId"])

    def remove_pair() -> None:
        with aws_errors(f"removing key pair {wanted.cluster}"):
            ec2.delete_key_pair(KeyName=wanted.cluster)

    if group is not None and has_tag(group.get("Tags"), wanted.cluster):
        steps.append(Step(f"security group {wanted.cluster}", "remove", str(group["GroupId"]), remove_group))
    if endpoints:
        steps.append(Step(f"S3 gateway endpoint of {wanted.vpc_id}", "remove", "", remove_endpoints))
    if pair is not None and has_tag(pair.get("Tags"), wanted.cluster):
        steps.append(Step(f"key pair {wanted.cluster}", "remove", "", remove_pair))
    return steps


def find_security_group(ec2: Any, wanted: Wanted) -> dict[str, Any] | None:
    """Return the group of the cluster's name in its VPC."""
    filters = [
        {"Name": "vpc-id", "Values": [wanted.vpc_id]},
        {"Name": "group-name", "Values": [wanted.cluster]},
    ]
    groups: list[dict[str, Any]] = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return groups[0] if groups else None


def _rule_changes(group: dict[str, Any], ssh_from: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rules to take away and those to add."""
    rules: list[dict[str, Any]] = group["IpPermissions"]
    within = any(
        rule["IpProtocol"] == "-1" and any(pair["GroupId"] == group["GroupId"] for pair in rule["UserIdGroupPairs"])
        for rule in rules
    )
    ours = set(_our_addresses(rules))
    open_to_all = [
        _bare(rule, entry) for rule in rules for entry in _entries(rule) if _address(entry) in ("0.0.0.0/0", "::/0")
    ]
    remove = [_ssh(address) for address in sorted(ours - set(ssh_from))] + open_to_all
    add = [_ssh(address) for address in ssh_from if address not in ours]
    return remove, add if within else [_within(group["GroupId"]), *add]


def _our_addresses(rules: list[dict[str, Any]]) -> Iterator[str]:
    for rule in rules:
        if rule.get("FromPort") == 22 == rule.get("ToPort"):
            yield from (_address(entry) for entry in _entries(rule) if entry.get("Description") == _SSH)


def _entries(rule: dict[str, Any]) -> list[dict[str, str]]:
    return [*rule.get("IpRanges", ()), *rule.get("Ipv6Ranges", ())]


def _address(entry: dict[str, str]) -> str:
    return entry.get("CidrIp") or entry["CidrIpv6"]


def _bare(rule: dict[str, Any], entry: dict[str, str]) -> dict[str, Any]:
    ports: dict[str, Any] = {key: rule[key] for key in ("FromPort", "ToPort") if key in rule}
    return {"IpProtocol": rule["IpProtocol"], **ports, "IpRanges" if "CidrIp" in entry else "Ipv6Ranges": [entry]}


def _ssh(address: str) -> dict[str, Any]:
    key, ranges = ("CidrIpv6", "Ipv6Ranges") if ":" in address else ("CidrIp", "IpRanges")
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, ranges: [{key: address, "Description": _SSH}]}


def _within(group_id: str) -> dict[str, Any]:
    return {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}


def _endpoints(ec2: Any, account: Account, wanted: Wanted) -> list[dict[str, Any]]:
    filters = [
        {"Name": "vpc-id", "Values": [wanted.vpc_id]},
        {"Name": "service-name", "Values": [f"com.amazonaws.{account.region}.s3"]},
    ]
    found: list[dict[str, Any]] = ec2.describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
    return [
        each
        for each in found
        if each.get("VpcEndpointType") == "Gateway"
        and each.get("State", "available").lower() not in ("deleted", "deleting")
    ]


def _key_pair(ec2: Any, name: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        pairs: list[dict[str, Any]] = ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"]
    except ClientError as error:
        if error_code(error) == "InvalidKeyPair.NotFound":
            return None
        raise
    return pairs[0] if pairs else None

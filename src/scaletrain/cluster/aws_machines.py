"""Can the file's machines be had: do their types, images and disks exist in the region, and does the quota suffice."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scaletrain.cluster.aws_account import Account, aws_errors, error_code
from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.cluster.schema import did_you_mean
from scaletrain.machine_types import too_old

_RESOLVE = "resolve:ssm:"
# Quotas count vCPUs, by the first letters of a type; https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
_QUOTAS = {
    ("p", "on-demand"): "L-417A185B",
    ("p5", "spot"): "L-C4BD4855",
    ("p", "spot"): "L-7212CCBC",
    ("g", "on-demand"): "L-DB2E81BA",
    ("g", "spot"): "L-3819A6DF",
    ("x", "on-demand"): "L-7295265B",
    ("x", "spot"): "L-E3A00192",
    ("standard", "on-demand"): "L-1216C47A",
    ("standard", "spot"): "L-34B43A08",
}
_STANDARD = set("acdhimrtz")


@dataclass(frozen=True)
class InstanceFacts:
    """What EC2 says of an instance type."""

    vcpus: int
    gpus: int
    gpu: str | None = None


def find_instance_types(account: Account, file: ClusterFile) -> tuple[dict[str, InstanceFacts], list[str]]:
    """Return what EC2 says of the file's instance types, and a problem for each that the region does not have."""
    ec2 = account.client("ec2")
    needed = sorted({kind.instance_type for kind in file.node_types if kind.instance_type})
    with aws_errors("looking at the instance types"):
        there = set(_offered(ec2, needed))
        everything = [] if set(needed) <= there else list(_offered(ec2, None))
        facts = {}
        if there:
            for each in ec2.describe_instance_types(InstanceTypes=sorted(there))["InstanceTypes"]:
                cards = each.get("GpuInfo", {}).get("Gpus", ())
                name = str(cards[0]["Name"]) if cards else None
                gpus = sum(card["Count"] for card in cards)
                facts[str(each["InstanceType"])] = InstanceFacts(each["VCpuInfo"]["DefaultVCpus"], gpus, name)
    problems = []
    for kind in file.node_types:
        place = f"available_node_types.{kind.name}"
        if kind.instance_type and kind.instance_type not in there:
            advice = did_you_mean(kind.instance_type, everything)
            advice = advice if advice.startswith("did") else "choose another type or region"
            problems.append(f"{place}: {account.region} has no {kind.instance_type}; {advice}")
        elif kind.instance_type in facts:
            problems += _resource_problems(kind, facts[kind.instance_type], place)
    return facts, problems


def image_problems(account: Account, file: ClusterFile) -> Iterator[str]:
    """Each image must be there in the region, and each machine's disk must be as large as its image."""
    resolved: dict[str, dict[str, Any] | str] = {}
    for kind in file.node_types:
        image = str(kind.node_config.get("ImageId", ""))
        if not image:
            continue
        if image not in resolved:
            resolved[image] = _find_image(account, image)
        found = resolved[image]
        place = f"available_node_types.{kind.name}.node_config"
        if isinstance(found, str):
            yield f"{place}.ImageId: {found}"
        else:
            yield from _image_disk_problems(kind, found, place)


def quota_problems(account: Account, file: ClusterFile, facts: dict[str, InstanceFacts]) -> tuple[list[str], list[str]]:
    """Return a problem for each quota that does not admit max_workers, and a line for each that AWS did not tell."""
    needed: dict[tuple[str, str], int] = {}
    for kind in file.node_types:
        count = 1 if kind.name == file.head_node_type else min(kind.max_workers, file.max_workers)
        family = _family(kind)
        if family is not None and kind.market is not None and kind.instance_type in facts:
            key = (family, kind.market)
            needed[key] = needed.get(key, 0) + count * facts[kind.instance_type].vcpus
    problems, unknown = [], []
    for (family, market), vcpus in needed.items():
        code = _QUOTAS[family, market]
        quota = _quota(account, code) if vcpus else None
        if quota is not None and quota < vcpus:
            page = f"https://{account.region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/{code}"
            problems.append(
                f"quota: the account may run {quota:g} vCPUs of {family} machines {_market_words(market)} in "
                f"{account.region}, the file's max_workers need {vcpus}; ask for more at {page}, or lower max_workers"
            )
        elif quota is None and vcpus:
            unknown.append(f"{family} {market}: not told")
    return problems, unknown


def _offered(ec2: Any, instance_types: list[str] | None) -> Iterator[str]:
    arguments = {} if instance_types is None else {"Filters": [{"Name": "instance-type", "Values": instance_types}]}
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(LocationType="region", **arguments)
    for page in pages:
        for each in page["InstanceTypeOfferings"]:
            if instance_types is None or each["InstanceType"] in instance_types:
                yield str(each["InstanceType"])


def _resource_problems(kind: NodeType, facts: InstanceFacts, place: str) -> Iterator[str]:
    if kind.cpus > facts.vcpus:
        yield f"{place}.resources: CPU: {kind.cpus:g}, but a {kind.instance_type} has {facts.vcpus}; lower it"
    if kind.gpus > facts.gpus:
        yield f"{place}.resources: GPU: {kind.gpus:g}, but a {kind.instance_type} has {facts.gpus}; lower it"
    if problem := too_old(facts.gpu):
        yield f"{place}: {kind.instance_type}: {problem}"


def _find_image(account: Account, image: str) -> dict[str, Any] | str:
    """Return EC2's description of an image, or what is wrong with it."""
    image_id = image
    if image.startswith(_RESOLVE):
        name = image.removeprefix(_RESOLVE)
        with aws_errors(f"looking for the image {name}"):
            parameters = account.client("ssm").get_parameters(Names=[name])["Parameters"]
        if not parameters:
            return f"{account.region} has no image parameter {name}; check its name, or choose another region"
        image_id = parameters[0]["Value"]
    ec2 = account.client("ec2")
    try:
        with aws_errors(f"looking for the image {image_id}"):
            images = ec2.describe_images(ImageIds=[image_id])["Images"]
    except Exception as error:
        if error_code(error.__cause__ or error) not in ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed"):
            raise
        images = []
    if images:
        found: dict[str, Any] = images[0]
        return found
    if image.startswith(_RESOLVE):
        return {}  # AWS's own parameter names it; that it cannot be looked at is no reason to refuse it
    return f"{account.region} has no image {image_id}; images belong to one region: copy it, or name another"


def _image_disk_problems(kind: NodeType, image: dict[str, Any], place: str) -> Iterator[str]:
    root = image.get("RootDeviceName")
    disks = {each["DeviceName"]: each.get("Ebs", {}) for each in kind.node_config.get("BlockDeviceMappings", ())}
    needed = next(
        (
            each["Ebs"].get("VolumeSize", 0)
            for each in image.get("BlockDeviceMappings", ())
            if each.get("DeviceName") == root and "Ebs" in each
        ),
        0,
    )
    if root in disks and disks[root].get("VolumeSize", needed) < needed:
        size = disks[root]["VolumeSize"]
        yield f"{place}: the disk {root} has {size} GB, its image needs {needed}; raise VolumeSize"


def _family(kind: NodeType) -> str | None:
    name = (kind.instance_type or "").lower()
    letters = name[: next((index for index, each in enumerate(name) if each.isdigit()), 0)]
    if name.startswith("p5") and kind.market == "spot":
        return "p5"
    if letters in ("p", "x"):
        return letters
    if letters in ("g", "gr", "vt"):
        return "g"
    return "standard" if letters[:1] in _STANDARD else None


def _quota(account: Account, code: str) -> float | None:
    """Return a quota, or None where this account's AWS does not tell it."""
    from botocore.exceptions import ClientError

    with aws_errors("looking at the quotas"):
        try:
            answer = account.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)
        except ClientError as error:
            if error_code(error) == "NoSuchResourceException":
                return None
            raise
    return float(answer["Quota"]["Value"])


def _market_words(market: str) -> str:
    return "on spot" if market == "spot" else "on demand"

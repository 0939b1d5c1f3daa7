"""What a caller must be allowed for each API call: one or several (action, resource, context) of IAM.

EC2's launches are the interesting ones: RunInstances is asked for on every resource that it makes or uses, tags given
with it need ec2:CreateTags, an instance profile needs iam:PassRole, an image by parameter needs ssm:GetParameters
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ExamplePolicies_EC2.html).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scaletrain.emulator.aws_permissions import Request
from scaletrain.emulator.aws_request import AwsRequest

PARAMETER_PREFIX = "resolve:ssm:"
_KINDS = {
    "i": "instance",
    "vol": "volume",
    "sg": "security-group",
    "subnet": "subnet",
    "eni": "network-interface",
    "ami": "image",
    "key": "key-pair",
    "eipalloc": "elastic-ip",
    "snap": "snapshot",
}
_ON_INSTANCES = ("TerminateInstances", "StopInstances", "StartInstances", "RebootInstances")


@dataclass(frozen=True)
class World:
    """What the answer depends on: where it is, the tags of a resource, and the role in a profile (name or ARN)."""

    region: str
    account_id: str
    tags_of: Callable[[str], Mapping[str, str]]
    role_arn_of: Callable[[str], str]


def needed_permissions(request: AwsRequest, world: World) -> list[Request]:
    """Return everything that must be allowed for this call; none for what everybody may do."""
    if request.service == "s3":
        return _on_bucket(request)
    action = f"{request.service}:{request.action}"
    if action == "sts:GetCallerIdentity":
        return []
    if request.service == "ssm":
        names = request.parameters.get("Names") or [request.parameters.get("Name", "")]
        return [Request(action, parameter_arn(name, world)) for name in names]
    if request.service != "ec2":
        return [Request(action, None)]
    if request.action == "RunInstances":
        return _to_launch(request, world)
    if request.action in _ON_INSTANCES:
        return [_on_resource(action, each, {}, world) for each in request.numbered("InstanceId")]
    if request.action in ("CreateTags", "DeleteTags"):
        tags = {f"aws:RequestTag/{key}": value for key, value in request.tags("Tag").items()}
        context = {**tags, "aws:TagKeys": list(request.tags("Tag"))}
        return [_on_resource(action, each, context, world) for each in request.numbered("ResourceId")]
    if request.action.startswith("Describe"):
        return [Request(action, "*", {"aws:RequestedRegion": world.region, "ec2:Region": world.region})]
    return [Request(action, None)]


def parameter_arn(name: str, world: World) -> str:
    """Return the ARN of an SSM parameter; public ones belong to no account."""
    owner = "" if name.startswith("/aws/") else world.account_id
    return f"arn:aws:ssm:{world.region}:{owner}:parameter/{name.removeprefix('/')}"


def _on_bucket(request: AwsRequest) -> list[Request]:
    action = f"s3:{request.action}"
    if not request.bucket:
        return [Request(action, "*")]
    bucket = f"arn:aws:s3:::{request.bucket}"
    if request.keys:
        return [Request(action, f"{bucket}/{key}") for key in request.keys]
    context = {"s3:prefix": str(request.parameters.get("prefix", ""))}
    return [Request(action, bucket, context if action.startswith("s3:ListBucket") else {})]


def _on_resource(action: str, identifier: str, context: Mapping[str, str | Sequence[str]], world: World) -> Request:
    tags = world.tags_of(identifier)
    owned = {f"{prefix}ResourceTag/{key}": value for key, value in tags.items() for prefix in ("aws:", "ec2:")}
    return Request(action, _arn(identifier, world), {**_place(world), **owned, **context})


def _arn(identifier: str, world: World) -> str:
    kind = _KINDS.get(identifier.partition("-")[0], "*")
    owner = "" if kind == "image" else world.account_id
    return f"arn:aws:ec2:{world.region}:{owner}:{kind}/{identifier}"


def _place(world: World) -> dict[str, str]:
    return {"aws:RequestedRegion": world.region, "ec2:Region": world.region}


def _to_launch(request: AwsRequest, world: World) -> list[Request]:
    given = request.parameters
    launch = _launch_context(request, world)
    needed = []
    spot = given.get("InstanceMarketOptions.MarketType") == "spot"
    for kind in ("instance", "volume", "network-interface", *(("spot-instances-request",) if spot else ())):
        tags = _tags_for(request, kind)
        context: dict[str, str | list[str]] = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
        context |= {**launch, "aws:TagKeys": list(tags)}
        if kind == "volume":
            context["ec2:Encrypted"] = _all_encrypted(request)
        arn = f"arn:aws:ec2:{world.region}:{world.account_id}:{kind}/*"
        needed.append(Request("ec2:RunInstances", arn, context))
        if tags:
            needed.append(Request("ec2:CreateTags", arn, {**context, "ec2:CreateAction": "RunInstances"}))
    image = given.get("ImageId", "")
    if image.startswith(PARAMETER_PREFIX):
        name = image.removeprefix(PARAMETER_PREFIX).partition(":")[0]
        needed.append(Request("ssm:GetParameters", parameter_arn(name, world)))
    elif image:
        needed.append(_on_resource("ec2:RunInstances", image, launch, world))
    used = [*request.numbered("SecurityGroupId"), *([given["SubnetId"]] if "SubnetId" in given else [])]
    needed += [_on_resource("ec2:RunInstances", each, launch, world) for each in used]
    if "KeyName" in given:
        arn = f"arn:aws:ec2:{world.region}:{world.account_id}:key-pair/{given['KeyName']}"
        needed.append(Request("ec2:RunInstances", arn, launch))
    if profile := profile_of(request):
        passed = {"iam:PassedToService": "ec2.amazonaws.com"}
        needed.append(Request("iam:PassRole", world.role_arn_of(profile), passed))
    return needed


def _launch_context(request: AwsRequest, world: World) -> dict[str, str]:
    given = request.parameters
    context = {**_place(world), "ec2:InstanceType": given.get("InstanceType", "")}
    if tokens := given.get("MetadataOptions.HttpTokens"):
        context["ec2:MetadataHttpTokens"] = tokens
    if profile := profile_of(request):
        name = profile.rpartition("/")[2]
        context["ec2:InstanceProfile"] = f"arn:aws:iam::{world.account_id}:instance-profile/{name}"
    market = given.get("InstanceMarketOptions.MarketType", "on-demand")
    return {**context, "ec2:InstanceMarketType": market}


def _all_encrypted(request: AwsRequest) -> str:
    """Whether each disk that the launch names is asked for encrypted; without any, the image's own is not."""
    disks = {key.split(".")[1] for key in request.parameters if key.startswith("BlockDeviceMapping.")}
    asked = [request.parameters.get(f"BlockDeviceMapping.{disk}.Ebs.Encrypted", "") for disk in disks]
    return "true" if asked and all(value.lower() == "true" for value in asked) else "false"


def profile_of(request: AwsRequest) -> str:
    """Return the instance profile that a launch names, by name or ARN; empty where it names none."""
    given = request.parameters
    return str(given.get("IamInstanceProfile.Name") or given.get("IamInstanceProfile.Arn") or "")


def _tags_for(request: AwsRequest, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in request.parameters.items():
        if key.startswith("TagSpecification.") and key.endswith(".ResourceType") and value == kind:
            found |= request.tags(f"{key.removesuffix('.ResourceType')}.Tag")
    return found

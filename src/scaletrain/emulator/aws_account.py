"""The emulated AWS account: who may do what, which images, parameters and instance types there are; kept by moto.

What moto lacks is put straight into its backends here, and nowhere else.
"""

import base64
import json
import secrets
import string
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from scaletrain.emulator import aws_instance_types
from scaletrain.emulator.aws_authorization import World, needed_permissions
from scaletrain.emulator.aws_permissions import Policy, is_allowed
from scaletrain.emulator.aws_request import AwsRequest, Refusal

ACCOUNT_ID = "123456789012"
LAPTOP_ACCESS_KEY = "AKIALAPTOP0EMULATED0"
CLOUD_ACCESS_KEY = "AKIACLOUD00EMULATED0"
CREDENTIALS_LAST_S = 6 * 3600
PROFILE_UNKNOWN_S = 3  # to EC2, after IAM has made it; on AWS it is some ten seconds
# Public parameters that name an image, and the user that the image's key goes to.
_IMAGE_USERS = {"ubuntu": "ubuntu", "amazon": "ec2-user", "al20": "ec2-user", "amzn": "ec2-user", "debian": "admin"}
_DEEP_LEARNING = (
    "/aws/service/deeplearning/ami/x86_64/{flavour}-{system}/latest/ami-id",
    ("base-oss-nvidia-driver-gpu", "oss-nvidia-driver-gpu-pytorch-2.9", "oss-nvidia-driver-gpu-pytorch-2.10"),
    ("ubuntu-22.04", "ubuntu-24.04", "amazon-linux-2023"),
)
_PLAIN_IMAGES = (
    "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
    "/aws/service/debian/release/12/latest/amd64",
    "/aws/service/debian/release/13/latest/amd64",
)


@dataclass(frozen=True)
class Caller:
    """Who makes a call; `policies` are None for the account's administrator."""

    name: str
    policies: tuple[Policy, ...] | None = None


@dataclass(frozen=True)
class Credentials:
    """What the metadata service hands to a machine for its role."""

    role: str
    instance_id: str
    access_key: str
    secret_key: str
    token: str
    expires_at: float


class Account:
    """The account's state beside moto's own; its methods may be called from any thread."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._issued: dict[str, Credentials] = {}
        self._given_subnets: set[str] = set()
        self._profiles_made: dict[str, float] = {}

    def prepare(self, instance_types: Sequence[str] = ()) -> None:
        """Make the parameters and images that AWS publishes, and keep few instance types (and the given ones)."""
        aws_instance_types.keep_few(self.region, instance_types)
        default = self.default_group()
        self.backend("ec2").authorize_security_group_ingress(
            default, "-1", "-1", "-1", [], source_groups=[{"GroupId": default}]
        )
        template, flavours, systems = _DEEP_LEARNING
        names = [template.format(flavour=flavour, system=system) for flavour in flavours for system in systems]
        for name in (*names, *_PLAIN_IMAGES):
            self.add_parameter(name, self.add_image(f"ami-{secrets.token_hex(8)}", name=name))

    def backend(self, service: str) -> Any:
        """Return moto's state of a service."""
        from moto.backends import get_backend

        regions: Any = get_backend(service)[ACCOUNT_ID]  # type: ignore[call-overload]
        return regions["aws" if service in ("iam", "sts", "s3") else self.region]

    # --- What is there ---------------------------------------------------------------------------------------------

    def add_image(self, image_id: str, *, name: str) -> str:
        """Publish a machine image; its name tells which user it has (see `image_user`)."""
        from moto.ec2.models.amis import Ami

        ec2 = self.backend("ec2")
        ec2.amis[image_id] = Ami(
            ec2,
            image_id,
            name=name,
            owner_id="898082745236",
            public=True,
            virtualization_type="hvm",
            architecture="x86_64",
            root_device_type="ebs",
            hypervisor="xen",
        )
        return image_id

    def add_parameter(self, name: str, image_id: str) -> None:
        """Publish a parameter whose value is an image; moto's own API refuses names below /aws."""
        from moto.core.utils import utcnow
        from moto.ssm.models import Parameter

        parameter = Parameter(  # type: ignore[abstract]  # moto makes them so itself
            account_id=ACCOUNT_ID,
            name=name,
            value=image_id,
            parameter_type="String",
            description=None,
            allowed_pattern=None,
            keyid=None,
            last_modified_date=utcnow(),
            version=1,
            data_type="aws:ec2:image",
        )
        self.backend("ssm")._parameters[name].append(parameter)

    def add_security_group(self, group_id: str, *, name: str, ssh_from: str) -> None:
        """Make a group with a given id, which admits SSH from `ssh_from` and everything from itself."""
        ec2 = self.backend("ec2")
        group = ec2.create_security_group(name, "made by scaletrain", None)
        del ec2.groups[group.vpc_id][group.id]
        group.id = group.group_id = group_id
        ec2.groups[group.vpc_id][group_id] = group
        ec2.authorize_security_group_ingress(group_id, "tcp", "22", "22", [{"CidrIp": ssh_from}])
        ec2.authorize_security_group_ingress(group_id, "-1", "-1", "-1", [], source_groups=[{"GroupId": group_id}])

    def add_subnet(self, subnet_id: str, zone: str = "") -> None:
        """Give an id to a default subnet: that of a zone, or of the first zone in which none was given yet."""
        ec2 = self.backend("ec2")
        free = {name: subnets for name, subnets in sorted(ec2.subnets.items()) if not self._given_subnets & {*subnets}}
        chosen = zone if zone in free else next(iter(free), "")
        if subnet_id in self._given_subnets or not chosen:
            return
        _, subnet = free[chosen].popitem()
        subnet.id = subnet_id
        free[chosen][subnet_id] = subnet
        self._given_subnets.add(subnet_id)

    def offers(self, instance_type: str) -> bool:
        """Tell whether the region has an instance type."""
        return instance_type in aws_instance_types.offered(self.region)

    def default_subnet(self, zone: str | None) -> str:
        """Return the default subnet of a zone, or of the first zone."""
        subnets = self.backend("ec2").subnets
        found = subnets.get(zone or min(subnets), {})
        if not found:
            raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        return str(next(iter(found)))

    def default_group(self) -> str:
        """Return the security group of launches that name none: it admits what comes from itself."""
        return str(self.backend("ec2").get_default_security_group().id)

    def resolve_parameter(self, name: str) -> str:
        """Return the image that a parameter names, as RunInstances does for `resolve:ssm:NAME`."""
        parameter = self.backend("ssm").get_parameter(name.partition(":")[0])
        if parameter is None or not str(parameter.value).startswith("ami-"):
            raise Refusal(
                "SsmInvalidParameter",
                f"The SSM parameter {name} does not exist in {self.region}, or its value is no image",
            )
        return str(parameter.value)

    def image_user(self, image_id: str) -> str | None:
        """Return the user that an image's key goes to, told from its name; None where the name does not tell."""
        image = self.backend("ec2").amis.get(image_id)
        name = str(image.name).lower() if image else ""
        return next((user for part, user in _IMAGE_USERS.items() if part in name), None)

    # --- Who may -----------------------------------------------------------------------------------------------------

    def role_of(self, profile: str) -> Any:
        """Return moto's role in an instance profile, given by name or ARN; None where it has none or is unknown."""
        wanted = profile.rpartition("/")[2]
        for each in self.backend("iam").get_instance_profiles():
            if each.name == wanted:
                return each.roles[0] if each.roles else None
        return None

    def note_new_profile(self, name: str) -> None:
        """Have EC2 learn of an instance profile only some seconds after this."""
        self._profiles_made = {**self._profiles_made, name: time.monotonic()}

    def may_launch_with(self, profile: str) -> bool:
        """Tell whether EC2 starts machines with a profile, given by name or ARN: one that it knows, with a role."""
        made = self._profiles_made.get(profile.rpartition("/")[2])
        known = made is None or time.monotonic() - made > PROFILE_UNKNOWN_S
        return known and self.role_of(profile) is not None

    def credentials_for(self, instance_id: str, role: str) -> Credentials:
        """Hand out a role's credentials to a machine: the same until half of their time is over."""
        now = time.time()
        for each in self._issued.values():
            if (each.instance_id, each.role) == (instance_id, role) and each.expires_at - now > CREDENTIALS_LAST_S / 2:
                return each
        letters = string.ascii_uppercase + string.digits
        issued = Credentials(
            role=role,
            instance_id=instance_id,
            access_key="ASIA" + "".join(secrets.choice(letters) for _ in range(16)),
            secret_key=secrets.token_urlsafe(30),
            token=secrets.token_urlsafe(60),
            expires_at=now + CREDENTIALS_LAST_S,
        )
        self._issued = {**self._issued, issued.access_key: issued}
        return issued

    def identify(self, request: AwsRequest) -> Caller:
        """Find out who signs a call; raises the service's own refusal of a stranger."""
        if request.access_key in (LAPTOP_ACCESS_KEY, CLOUD_ACCESS_KEY):
            return Caller("laptop" if request.access_key == LAPTOP_ACCESS_KEY else "cloud")
        issued = self._issued.get(request.access_key)
        if issued is not None and request.session_token == issued.token:
            if issued.expires_at < time.time():
                code = {"ec2": "RequestExpired", "s3": "ExpiredToken"}.get(request.service, "ExpiredTokenException")
                raise Refusal(code, "The security token included in the request is expired")
            return Caller(f"{issued.instance_id} ({issued.role})", self._policies_of(issued.role))
        user = self._user_with(request.access_key)
        if user is not None:
            return Caller(f"user {user.name}", self._policies_in(user))
        if not request.access_key:
            raise Refusal("AccessDenied", "Access Denied", status=403)
        code, message = {
            "ec2": ("AuthFailure", "AWS was not able to validate the provided access credentials"),
            "s3": ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
            "iam": ("InvalidClientTokenId", "The security token included in the request is invalid."),
            "sts": ("InvalidClientTokenId", "The security token included in the request is invalid."),
        }.get(
            request.service, ("UnrecognizedClientException", "The security token included in the request is invalid.")
        )
        raise Refusal(code, message, status=401 if request.service == "ec2" else 403)

    def authorise(self, request: AwsRequest, caller: Caller) -> None:
        """Raise the service's own refusal unless the caller's policies allow all that the call needs."""
        if caller.policies is None:
            return
        for needed in needed_permissions(request, self.world()):
            if is_allowed(caller.policies, needed):
                continue
            on = f" on resource: {needed.resource}" if needed.resource else ""
            message = f"{caller.name} is not authorized to perform: {needed.action}{on}"
            code = {"ec2": "UnauthorizedOperation", "s3": "AccessDenied", "iam": "AccessDenied", "sts": "AccessDenied"}
            raise Refusal(code.get(request.service, "AccessDeniedException"), message, status=403)

    def world(self) -> World:
        """Return what authorisation depends on."""
        return World(self.region, ACCOUNT_ID, self._tags_of, self._role_arn_of)

    def _tags_of(self, identifier: str) -> Mapping[str, str]:
        tags = self.backend("ec2").tags.get(identifier, {})
        return {str(key): str(value) for key, value in tags.items()}

    def _role_arn_of(self, profile: str) -> str:
        role = self.role_of(profile)
        return str(role.arn) if role else f"arn:aws:iam::{ACCOUNT_ID}:role/none-in-{profile}"

    def _policies_of(self, role_name: str) -> tuple[Policy, ...]:
        from moto.iam.exceptions import NotFoundException

        with suppress(NotFoundException):
            return self._policies_in(self.backend("iam").get_role(role_name))
        return ()

    def _policies_in(self, holder: Any) -> tuple[Policy, ...]:
        versions = [version for policy in holder.managed_policies.values() for version in policy.versions]
        managed = [version.document for version in versions if version.is_default]
        return tuple(json.loads(document) for document in (*holder.policies.values(), *managed))

    def _user_with(self, access_key: str) -> Any:
        for user in self.backend("iam").users.values():
            if any(key.access_key_id == access_key for key in user.access_keys):
                return user
        return None


def user_data_of(instance: Any) -> bytes:
    """Return the user data of one of moto's instances."""
    return base64.b64decode(instance.user_data.as_bytes()) if instance.user_data else b""

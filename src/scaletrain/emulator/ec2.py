"""An emulated EC2 on this computer: a laptop, machines with real SSH, S3, IAM and the metadata service; needs root.

What runs on it is unmodified: Ray's launcher, boto3, SSH. GPUs are resources in name only, all machines share this
computer's cores and memory, and prices, quotas and the time that machines need to boot are not emulated.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scaletrain.emulator.aws_account import LAPTOP_ACCESS_KEY
from scaletrain.emulator.ec2_process import ENDPOINT_URL, GATEWAY, Options
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance, Kind

_CREDENTIALS = f"""[default]
aws_access_key_id = {LAPTOP_ACCESS_KEY}
aws_secret_access_key = unchecked
"""


def emulated_ec2(
    folder: Path,
    *,
    region: str = "us-west-2",
    prepared: bool = True,
    internet: bool = False,
    image_user: str = "ubuntu",
    instance_types: Sequence[str] = (),
) -> EmulatedCloud:
    """Make an account in one region, whose administrator is logged in on the laptop.

    `prepared` machines have the environment that runs this at /opt/scaletrain/venv; on bare ones it is hidden.
    With `internet` they reach it through an HTTP proxy (see `scaletrain.emulator.proxy`).
    `image_user` gets the key on images whose name does not tell theirs. `instance_types` are known besides the usual.
    """
    folder = folder.resolve()
    kind = Kind(
        provider="aws",
        module="scaletrain.emulator.ec2_process",
        options=asdict(Options(str(folder), region, prepared, image_user, tuple(instance_types), internet)),
        settings={"AWS_ENDPOINT_URL": ENDPOINT_URL, "AWS_EC2_METADATA_DISABLED": "true"},
        files={".aws/credentials": _CREDENTIALS, ".aws/config": f"[default]\nregion = {region}\n"},
        proxy_address=GATEWAY if internet else "",
    )
    return EmulatedCloud(folder, kind, region=region)


def advise_rebalance(cloud: EmulatedCloud, instance: Instance) -> None:
    """Tell a spot machine, without naming a time, that it is more likely than before to be taken."""
    cloud.ask("advise_rebalance", name=instance.id)


def add_image(cloud: EmulatedCloud, image_id: str, *, name: str = "") -> None:
    """Let a machine image of this id exist."""
    cloud.ask("add_image", image_id=image_id, name=name)


def add_security_group(cloud: EmulatedCloud, group_id: str, *, name: str) -> None:
    """Let a group of this id exist, which admits SSH from the laptop and everything from itself."""
    cloud.ask("add_security_group", group_id=group_id, name=name)


def add_subnet(cloud: EmulatedCloud, subnet_id: str, *, zone: str = "") -> None:
    """Let a public subnet of this id exist, in a zone if one is named."""
    cloud.ask("add_subnet", subnet_id=subnet_id, zone=zone)

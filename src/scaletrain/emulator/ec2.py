"""An emulated EC2 on this computer: a laptop, machines with real SSH, S3, IAM and the metadata service; needs root.

    with EmulatedEC2(Path("cloud")) as cloud:
        cloud.laptop(["ray", "up", "-y", "aws.yaml"])
        cloud.preempt(cloud.instances()[-1], notice_s=120)

What runs on it is unmodified: Ray's launcher, boto3, SSH. GPUs are resources in name only, all machines share this
computer's cores and memory, and prices, quotas and the time that machines need to boot are not emulated.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from scaletrain.emulator.api_log import ApiCall
from scaletrain.emulator.aws_account import LAPTOP_ACCESS_KEY
from scaletrain.emulator.aws_api import DIES_AT_BOOT
from scaletrain.emulator.cloud_process import LAPTOP
from scaletrain.emulator.ec2_process import ENDPOINT_URL, GATEWAY, Options
from scaletrain.emulator.requirements import check_requirements
from scaletrain.emulator.stage import Instance, Stage

__all__ = ["DIES_AT_BOOT", "ApiCall", "EmulatedEC2", "Instance"]


class EmulatedEC2:
    """A cloud for the time of a `with` block; two may run side by side in different folders.

    `prepared` machines have the environment that runs this at /opt/scaletrain/venv; on bare ones it is hidden.
    With `internet` they reach it through an HTTP proxy (see `scaletrain.emulator.proxy`).
    `image_user` gets the key on images whose name does not tell theirs. `instance_types` are known besides the usual.
    """

    def __init__(
        self,
        folder: Path,
        *,
        region: str = "us-west-2",
        prepared: bool = True,
        internet: bool = False,
        image_user: str = "ubuntu",
        instance_types: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.region = region
        self.endpoint_url = ENDPOINT_URL
        self.laptop_address = LAPTOP
        options = Options(str(self.folder), region, prepared, image_user, tuple(instance_types), internet)
        settings = {"AWS_ENDPOINT_URL": ENDPOINT_URL, "AWS_EC2_METADATA_DISABLED": "true"}
        module = "scaletrain.emulator.ec2_process"
        self._stage = Stage(self.folder, module=module, options=asdict(options), laptop_settings=settings)
        self._proxy_address = GATEWAY if internet else ""
        # What every cloud has; see there.
        self.laptop_home = self._stage.laptop_home
        self.laptop = self._stage.laptop
        self.start_on_laptop = self._stage.start_on_laptop
        self.on_machine = self._stage.on_machine
        self.third_machine = self._stage.third_machine
        self.instances = self._stage.instances
        self.machines = self._stage.machines
        self.api_log = self._stage.api_log
        self.now_s = self._stage.now_s
        self.fetches = self._stage.fetches
        self.crash = self._stage.crash
        self.cut = self._stage.cut
        self.heal = self._stage.heal

    def __enter__(self) -> "EmulatedEC2":
        check_requirements("aws")
        self._make_laptop_home()
        self._stage.start(proxy_address=self._proxy_address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.end()

    @property
    def ssh_connections(self) -> Path:
        """The folder in which Ray on the laptop keeps its SSH connections."""
        return self._stage.ssh_connections

    def aws(self, service: str, operation: str, **arguments: Any) -> Any:
        """Call AWS as the account's administrator: `aws("s3", "create_bucket", Bucket="b", ...)`, as boto3 does."""
        return self._stage.ask("aws", service=service, operation=operation, arguments=arguments)

    def fail_launches(self, code: str, *, count: int = 1, market: str = "", instance_type: str = "") -> None:
        """Let the next `count` calls to launch fail with EC2's `code`, or end at boot with DIES_AT_BOOT; 0: no more.

        Ray's launcher calls five times before it gives up.
        """
        self._stage.ask("fail_launches", code=code, count=count, market=market, instance_type=instance_type)

    def advise_rebalance(self, instance: Instance) -> None:
        """Tell a spot machine, without naming a time, that it is more likely than before to be taken."""
        self._stage.ask("advise_rebalance", instance_id=instance.id)

    def preempt(self, instance: Instance, *, notice_s: float) -> None:
        """Announce the end of a spot machine to it now, and terminate it `notice_s` seconds later."""
        self._stage.ask("preempt", instance_id=instance.id, notice_s=notice_s)

    def add_image(self, image_id: str, *, name: str = "") -> None:
        """Let a machine image of this id exist."""
        self._stage.ask("add_image", image_id=image_id, name=name)

    def add_security_group(self, group_id: str, *, name: str) -> None:
        """Let a group of this id exist, which admits SSH from the laptop and everything from itself."""
        self._stage.ask("add_security_group", group_id=group_id, name=name)

    def add_subnet(self, subnet_id: str, *, zone: str = "") -> None:
        """Let a public subnet of this id exist, in a zone if one is named."""
        self._stage.ask("add_subnet", subnet_id=subnet_id, zone=zone)

    def _make_laptop_home(self) -> None:
        for folder in (self.laptop_home / ".aws", self.laptop_home / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        keys = f"aws_access_key_id = {LAPTOP_ACCESS_KEY}\naws_secret_access_key = unchecked\n"
        (self.laptop_home / ".aws" / "credentials").write_text(f"[default]\n{keys}")
        (self.laptop_home / ".aws" / "config").write_text(f"[default]\nregion = {self.region}\n")

"""An emulated Google Cloud on this computer: a laptop, machines with real SSH, buckets, IAM, metadata; needs root.

    with EmulatedGCE(Path("cloud")) as cloud:
        cloud.laptop(["ray", "up", "-y", "gcp.yaml"])
        cloud.preempt(cloud.instances()[-1], notice_s=30)

What runs on it is unmodified: Ray's launcher, Google's libraries, SSH. All *.googleapis.com that it knows are answered
over HTTPS with a certificate of its own, which laptop and machines trust. GPUs are resources in name only, all machines
share this computer's cores and memory, and prices and the time that machines need to boot are not emulated.
"""

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from scaletrain.emulator.api_log import ApiCall
from scaletrain.emulator.certificates import trust_settings
from scaletrain.emulator.cloud_process import LAPTOP
from scaletrain.emulator.gce_process import GATEWAY, Options
from scaletrain.emulator.requirements import check_requirements
from scaletrain.emulator.stage import Instance, Stage

__all__ = ["ApiCall", "EmulatedGCE", "Instance"]
_CREDENTIALS = {
    "type": "authorized_user",
    "client_id": "emulated.apps.googleusercontent.com",
    "client_secret": "unchecked",
    "refresh_token": "unchecked",
}


class EmulatedGCE:
    """A cloud for the time of a `with` block; two may run side by side in different folders.

    There is one project, with the default network and generous quotas, whose owner is logged in on the laptop.
    `prepared` machines have the environment that runs this at /opt/scaletrain/venv; on bare ones it is hidden.
    With `internet` they reach it through an HTTP proxy (see `scaletrain.emulator.proxy`).
    Operations are done at once, or after `operations_last_s`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: str = "emulated-project",
        region: str = "us-central1",
        prepared: bool = True,
        internet: bool = False,
        operations_last_s: float = 0,
    ) -> None:
        self.folder = folder.resolve()
        self.project = project
        self.region = region
        self.laptop_address = LAPTOP
        options = Options(str(self.folder), project, region, prepared, internet, operations_last_s)
        trusted = str(self.folder / "trusted.pem")
        settings = {
            **trust_settings(trusted),
            "GOOGLE_CLOUD_PROJECT": project,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
        module = "scaletrain.emulator.gce_process"
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

    def __enter__(self) -> "EmulatedGCE":
        check_requirements("gcp")
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

    def google(self, service: str, operation: str, **arguments: Any) -> Any:
        """Call an API as the cloud itself: `google("compute", "instances.list", zone="us-central1-a")`.

        `body` is what is sent; `project` is this one unless given.
        """
        return self._stage.ask("google", service=service, operation=operation, arguments=arguments)

    def fail_launches(self, code: str, *, count: int = 1, market: str = "", instance_type: str = "") -> None:
        """Let the operations of the next `count` launches end in an error; 0: no more.

        Google's codes are ZONE_RESOURCE_POOL_EXHAUSTED and QUOTA_EXCEEDED; the latter comes by itself, too, where a
        quota (`set_quota`) is used up.
        """
        self._stage.ask("fail_launches", code=code, count=count, market=market, instance_type=instance_type)

    def set_quota(self, metric: str, limit: float) -> None:
        """Let a quota of the region or the project have another limit: `set_quota("GPUS_ALL_REGIONS", 0)`."""
        self._stage.ask("set_quota", metric=metric, limit=limit)

    def preempt(self, instance: Instance, *, notice_s: float = 30, shutdown_after_s: float | None = None) -> None:
        """Announce the end of a Spot VM to it now, and take it `notice_s` seconds later.

        `shutdown_after_s` is when its guest begins to shut down, by SIGTERM to all processes: at the end unless given.
        Compute Engine sends its signal (ACPI) with the notice, and it is up to the guest how long it puts it off.
        """
        after_s = notice_s if shutdown_after_s is None else shutdown_after_s
        self._stage.ask("preempt", name=instance.id, notice_s=notice_s, shutdown_after_s=after_s)

    def maintain(self, instance: Instance, event: str) -> None:
        """Let the metadata server announce TERMINATE_ON_HOST_MAINTENANCE or another event; NONE: it is over."""
        self._stage.ask("maintain", name=instance.id, event=event)

    def _make_laptop_home(self) -> None:
        """As `gcloud auth application-default login` leaves it."""
        folder = self.laptop_home / ".config" / "gcloud"
        for each in (folder, self.laptop_home / "tmp"):
            each.mkdir(parents=True, exist_ok=True)
        credentials = {**_CREDENTIALS, "quota_project_id": self.project}
        (folder / "application_default_credentials.json").write_text(json.dumps(credentials))

"""An emulated Google Cloud on this computer: a laptop, machines with real SSH, buckets, IAM, metadata; needs root.

What runs on it is unmodified: Ray's launcher, Google's libraries, SSH. All *.googleapis.com that it knows are answered
over HTTPS with a certificate of its own, which laptop and machines trust. GPUs are resources in name only, all machines
share this computer's cores and memory, and prices and the time that machines need to boot are not emulated.
"""

import json
from dataclasses import asdict
from pathlib import Path

from scaletrain.emulator.certificates import trust_settings
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance, Kind
from scaletrain.emulator.gce_process import GATEWAY, Options

_CREDENTIALS = {
    "type": "authorized_user",
    "client_id": "emulated.apps.googleusercontent.com",
    "client_secret": "unchecked",
    "refresh_token": "unchecked",
}


def emulated_gce(
    folder: Path,
    *,
    project: str = "emulated-project",
    region: str = "us-central1",
    prepared: bool = True,
    internet: bool = False,
    operations_last_s: float = 0,
) -> EmulatedCloud:
    """Make a project with the default network and generous quotas, whose owner is logged in on the laptop.

    `prepared` machines have the environment that runs this at /opt/scaletrain/venv; on bare ones it is hidden.
    With `internet` they reach it through an HTTP proxy (see `scaletrain.emulator.proxy`).
    Operations are done at once, or after `operations_last_s`.
    """
    folder = folder.resolve()
    logged_in = json.dumps({**_CREDENTIALS, "quota_project_id": project})
    kind = Kind(
        provider="gcp",
        module="scaletrain.emulator.gce_process",
        options=asdict(Options(str(folder), project, region, prepared, internet, operations_last_s)),
        settings={
            **trust_settings(str(folder / "trusted.pem")),
            "GOOGLE_CLOUD_PROJECT": project,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        },
        files={".config/gcloud/application_default_credentials.json": logged_in},
        proxy_address=GATEWAY if internet else "",
    )
    return EmulatedCloud(folder, kind, region=region, project=project)


def begin_shutdown(cloud: EmulatedCloud, instance: Instance) -> None:
    """Let a machine's guest begin to shut down now, by SIGTERM to all processes, while it stays on.

    Compute Engine sends that signal (ACPI) with the notice of a preemption, and it is up to the guest how long it puts
    it off: here until the machine is taken, unless this is called.
    """
    cloud.ask("begin_shutdown", name=instance.id)


def maintain(cloud: EmulatedCloud, instance: Instance, event: str) -> None:
    """Let the metadata server announce TERMINATE_ON_HOST_MAINTENANCE or another event; NONE: it is over."""
    cloud.ask("maintain", name=instance.id, event=event)

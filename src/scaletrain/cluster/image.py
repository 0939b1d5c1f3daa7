"""`scaletrain cluster image`: turns a worker that is set up into an image, so that later ones need no installation.

A worker, never the head: its runs would end. The machine is first taken out of its cluster's sight (Ray then starts a
new one where it needs one), then wiped of everything that is secret or its own, imaged, and terminated.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.errors import ClusterError, ConfigError, ScaletrainError

Wipe = Callable[[ClusterFile, str], None]  # cleans the machine at an address

# Run on the machine by `bash -s`; ROOT is empty there. What cloud-init made (host keys, the key that opens the
# machine) it makes anew at the first start from the image.
WIPE = r"""
set -euo pipefail
ROOT=${ROOT:-}
# The watch would end the machine, which is without Ray from here on, before the image is made.
systemctl stop scaletrain-worker-watch >/dev/null 2>&1 || true
command -v ray >/dev/null && ray stop --force >/dev/null 2>&1 || true
for home in "$ROOT"/root "$ROOT"/home/*; do
  [ -d "$home" ] || continue
  rm -rf "$home"/.ray "$home"/ray_bootstrap_* "$home"/.aws "$home"/.config/gcloud "$home"/.cache/huggingface
  rm -f "$home"/.netrc "$home"/.git-credentials
  rm -f "$home"/.*_history "$home"/.ssh/authorized_keys "$home"/.ssh/known_hosts "$home"/.ssh/id_*
done
rm -f "$ROOT"/etc/ssh/ssh_host_*
rm -rf "$ROOT"/tmp/ray "$ROOT"/tmp/ray_* "$ROOT"/var/log/journal/*
rm -rf "$ROOT"/var/lib/cloud/instances "$ROOT"/var/lib/cloud/instance
find "$ROOT"/var/log -type f -exec truncate -s 0 {} + 2>/dev/null || true
: >"$ROOT"/etc/machine-id
sync
echo wiped
"""


@dataclass(frozen=True)
class BakedImage:
    """A prepared image, the node type it was made for, the line to write and how to remove it."""

    image_id: str
    name: str
    node_type: str
    line: str
    removal: str

    def record(self) -> dict[str, str]:
        """The image for --json."""
        return {"image_id": self.image_id, "name": self.name, "node_type": self.node_type}

    def advice(self, file: ClusterFile) -> str:
        """What to do with it."""
        return (
            f"In {file.path}, for {self.node_type} (and types with the same hardware), write:\n"
            f"      {self.line}\n"
            f"then: ray up {file.path}. Machines that run stay as they are. To remove the image: {self.removal}"
        )


def bake(file: ClusterFile, node_type: str | None, *, tell: Callable[[str], None]) -> BakedImage:
    """Make an image of a running worker of a type (the first with GPUs by default); that worker is used up."""
    if file.provider == "aws":
        from scaletrain.cluster import aws_account, aws_image

        account = aws_account.connect(file.region or aws_account.own_region())
        return aws_image.bake_image(account, file, node_type, tell=tell)
    if file.provider == "gcp":
        from scaletrain.cluster import gcp_account, gcp_image

        project = gcp_account.connect(file.raw["provider"].get("project_id"), str(file.region))
        return gcp_image.bake_image(project, file, node_type, tell=tell)
    raise ConfigError(f"{file.path}: images are made on AWS and Google Cloud; this file is for {file.provider}")


def wipe_over_ssh(file: ClusterFile, address: str) -> None:
    """Run WIPE on a machine as root; afterwards nobody can log in there any more."""
    key = ["-i", str(file.ssh_private_key)] if file.ssh_private_key else []
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20"]
    command = ["ssh", *key, *options, "-o", "BatchMode=yes", f"{file.ssh_user}@{address}", "sudo -n bash -ls"]
    try:
        done = subprocess.run(command, input=WIPE, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{address} could not be wiped within 300 s; no image was made") from error
    if done.returncode != 0 or "wiped" not in done.stdout:
        raise ClusterError(
            f"{address} could not be wiped (ssh exit code {done.returncode}: {done.stderr.strip()[-300:]}), so no "
            "image was made"
        )


@contextmanager
def ended_if_it_fails(
    file: ClusterFile, machine: str, end: Callable[[], None], *, tell: Callable[[str], None]
) -> Iterator[None]:
    """End a machine that has left its cluster where the work on it fails or is interrupted: Ray does not see it."""
    try:
        yield
    except BaseException:
        tell(f"end {machine}, which has left the cluster")
        try:
            end()
        except ScaletrainError as error:
            tell(f"{error}; it costs money until `scaletrain cluster sweep-leaks {file.path} --delete` has ended it")
        raise


def choose_type(file: ClusterFile, name: str | None) -> NodeType:
    """Return the worker type of a name, by default the first with GPUs."""
    if name is None:
        return next((kind for kind in file.workers if kind.gpus), file.workers[0])
    for kind in file.workers:
        if kind.name == name:
            return kind
    raise ConfigError(f"--node-type: got {name}; workers are {', '.join(kind.name for kind in file.workers)}")


def image_name(file: ClusterFile, kind: NodeType) -> str:
    """Return a name for an image that is made now, in the letters that every cloud takes."""
    return f"{file.name}-{kind.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}".replace("_", "-").lower()


def none_is_set_up(file: ClusterFile, kind: NodeType) -> ClusterError:
    """The error where no machine of a type is set up."""
    return ClusterError(
        f"no {kind.name} of {file.name} runs and is set up; set min_workers: 1 for it, run `ray up {file.path}`, wait "
        f"until `ray exec {file.path} 'ray status'` shows it, and try again"
    )

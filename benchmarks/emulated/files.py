"""The cluster files that are compared: the shipped one, the same with Ray's failure detection, and Ray's example."""

import re
import subprocess
from pathlib import Path

from scaletrain.cluster import places

PROJECT = Path(__file__).parents[2]
REGION = "us-west-2"
ROOT = "s3://benchmark/scaletrain"
# What tells a lost machine, in the commands that start Ray.
_DETECTION = re.compile(
    r"\s*(RAY_(health_check|raylet_rpc|core_worker_rpc|grpc_client)\w+|AUTOSCALER_UPDATE_INTERVAL_S)=\d+"
)
# The values of python/ray/autoscaler/aws/example-minimal.yaml in Ray's repository, but for the head's resources.
_STOCK = """
cluster_name: stock
max_workers: 2  # Ray's default
provider: {type: aws, region: us-west-2}
auth: {ssh_user: ubuntu}
head_node_type: ray.head.default
available_node_types:
  ray.head.default: {resources: {CPU: 0}, node_config: {InstanceType: m5.large}}
  ray.worker.default: {min_workers: 1, max_workers: 4, resources: {}, node_config: {InstanceType: m5.large}}
"""


def shipped_file(folder: Path) -> Path:
    """Write cluster/aws.yaml as `scaletrain cluster init` fills it, for an account that has what it names."""
    key, token = folder / "ssh_key", folder / "auth_token"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    token.write_text("0123456789abcdef" * 4)
    given = {
        "bucket": ROOT,
        "region": REGION,
        "ssh_key": str(key),
        "key_name": "scaletrain",
        "head_profile": f"scaletrain-{REGION}-head",
        "worker_profile": f"scaletrain-{REGION}-worker",
        "security_group": "sg-0123456789abcdef0",
        "subnet": "subnet-0123456789abcdef0",
        "cluster": "scaletrain",
        "token": str(token),
        "project": str(PROJECT),
    }
    text = (PROJECT / "cluster/aws.yaml").read_text()
    wanted = {name.partition("/")[0] for name in places.find_places(text)}
    path = folder / "aws.yaml"
    path.write_text(places.fill_places(text, {name: given[name] for name in wanted}, source=str(path)))
    return path


def file_with_rays_detection(folder: Path) -> Path:
    """Write the shipped file without the settings that tell a lost machine: Ray's defaults hold."""
    path = shipped_file(folder)
    text, removed = _DETECTION.subn("", path.read_text())
    assert removed > 0, "the shipped file no longer sets how a lost machine is told"
    path.write_text(text)
    return path


def stock_file(folder: Path) -> Path:
    """Write Ray's minimal example."""
    path = folder / "stock.yaml"
    path.write_text(_STOCK)
    return path

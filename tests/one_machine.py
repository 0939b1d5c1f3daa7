"""A machine of its own on this one: its processes, network, mounts and home, with a real SSH server and S3 server.

Nothing that runs in it, `ray stop` included, reaches anything outside, and killing its first process ends it all.
Needs root, sshd and rsync.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

ADDRESS = "10.77.0.1"
BUCKET = "s3://bucket/root"
_S3 = f"http://{ADDRESS}:5000"
_AWS = f"AWS_ENDPOINT_URL={_S3} AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing AWS_DEFAULT_REGION=us-east-1"
_BIN = Path(sys.executable).parent
_BOOT = f"""
set -euo pipefail
ip link set lo up
ip address add {ADDRESS}/32 dev lo
# An empty home, but for what Python and a compiled extension need of the real one.
kept=0
for folder in "{sys.base_prefix}" /root/.cache; do
  [[ "$folder" == /root/* && -d "$folder" ]] || continue
  kept=$((kept + 1)); mkdir -p "$1/kept$kept"; mount --bind "$folder" "$1/kept$kept"; echo "$folder" >"$1/kept$kept.txt"
done
mount -t tmpfs tmpfs /root
for number in $(seq "$kept"); do
  folder=$(cat "$1/kept$number.txt"); mkdir -p "$folder"; mount --bind "$1/kept$number" "$folder"
done
mkdir -p /tmp/ray "$1/ray"
mount --bind "$1/ray" /tmp/ray
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
mkdir -p -m 700 /root/.ssh
cp "$1/key.pub" /root/.ssh/authorized_keys
echo 'export PATH={_BIN}:$PATH RAY_AUTH_MODE=token' >/root/.bash_profile  # for what Ray runs by SSH, as set-up does it
/usr/sbin/sshd -h "$1/host_key" -E "$1/sshd.log" -o PidFile=none -o StrictModes=no -o UsePAM=no
{_BIN}/moto_server -H {ADDRESS} -p 5000 >"$1/moto.log" 2>&1 &
touch "$1/booted"
wait
"""

CLUSTER_FILE = """
cluster_name: {name}
metadata: {{bucket: "{bucket}"}}
provider: {{type: local, head_ip: {address}, worker_ips: []}}
auth: {{ssh_user: root, ssh_private_key: {folder}/key}}
file_mounts: {{~/.ray/auth_token: {folder}/auth_token}}
setup_commands: []
head_start_ray_commands:
  - >-
    export PATH={bin}:$PATH RAY_AUTH_MODE=token {aws} OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE;
    ray start --head --port=6379 --node-ip-address={address} --dashboard-host=127.0.0.1 --num-cpus=4
    --object-store-memory=200000000 --autoscaling-config=~/ray_bootstrap_config.yaml
worker_start_ray_commands: []
"""


def missing() -> str:
    """What this machine lacks for it; empty where nothing is missing."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [name for name in ("sshd", "rsync", "ip", "unshare", "nsenter") if not _which(name)]
    return f"needs {', '.join(lacking)} (apt-get install openssh-server rsync iproute2)" if lacking else ""


class Machine:
    """The machine, from its start to `end`; `folder` lies outside and is seen inside at the same path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("key", "host_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        token = folder / "auth_token"
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        isolated = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            ["unshare", *isolated, "bash", "-c", _BOOT, "boot", str(folder)], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while not (folder / "booted").exists() or not self.answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "the machine did not boot"
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether its S3 server is up."""
        return self.run("python", "-c", f"import urllib.request as r; r.urlopen('{_S3}/moto-api/')").returncode == 0

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command on the machine."""
        return subprocess.Popen(
            self._entering(arguments, environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, timeout_s: float = 240, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on the machine to its end."""
        command = self._entering(arguments, environment)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)

    def succeed(self, *arguments: str, timeout_s: float = 240, **environment: str) -> str:
        """Run a command that has to end with 0; returns its stdout."""
        done = self.run(*arguments, timeout_s=timeout_s, **environment)
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write_cluster_file(self, name: str = "one") -> str:
        """Write a cluster file of this machine alone; returns its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(
            CLUSTER_FILE.format(name=name, bucket=BUCKET, address=ADDRESS, folder=self.folder, bin=_BIN, aws=_AWS)
        )
        return str(path)

    def objects(self) -> list[str]:
        """The keys in its bucket."""
        code = "import boto3, json; r = boto3.client('s3').list_objects_v2(Bucket='bucket')\n"
        code += "print(json.dumps([o['Key'] for o in r.get('Contents', [])]))"
        found: list[str] = json.loads(self.succeed("python", "-c", code))
        return found

    def end(self) -> None:
        """End everything that runs on it."""
        self._process.kill()
        self._process.wait(timeout=30)

    def _entering(self, arguments: tuple[str, ...], environment: dict[str, str]) -> list[str]:
        init = psutil.Process(self._process.pid).children()[0].pid
        settings = dict(each.split("=", 1) for each in _AWS.split()) | {
            "HOME": "/root",
            "PATH": f"{_BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **environment,
        }
        inside = ["nsenter", "-t", str(init), "-n", "-m", "-p", "-u", "-i", f"--wd={self.folder}", "--"]
        return [*inside, "env", "-i", *(f"{name}={value}" for name, value in settings.items()), *arguments]


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True)

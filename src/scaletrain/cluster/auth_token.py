"""What lets a person into a cluster, made on this machine: Ray's token and the SSH key, readable by their owner only.

Ray looks for its token in RAY_AUTH_TOKEN, then in the file named by RAY_AUTH_TOKEN_PATH, then in ~/.ray/auth_token
(https://docs.ray.io/en/latest/ray-security/token-auth.html). Each cluster has its own here; on the machines it is
brought to the last of these places.
"""

import os
import secrets
import shutil
import stat
import subprocess
from pathlib import Path

from scaletrain.errors import ClusterError


def folder_of(cluster_name: str) -> Path:
    """Where this user's secrets of one cluster lie."""
    return Path("~/.scaletrain").expanduser() / cluster_name


def token_path(cluster_name: str) -> Path:
    """The file of a cluster's token."""
    return folder_of(cluster_name) / "auth_token"


def key_path(cluster_name: str) -> Path:
    """The file of a cluster's private SSH key; the public half lies beside it, with .pub behind its name."""
    return folder_of(cluster_name) / "ssh_key"


def ensure_token(cluster_name: str) -> bool:
    """Make the token where there is none; return whether it was made. An old one is kept, its mode put right."""
    path = token_path(cluster_name)
    if path.exists():
        path.chmod(0o600)
        return False
    _make_folder(path.parent)
    # Never readable by others, not even for a moment; and never half of one.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return True


def ensure_key(cluster_name: str) -> bool:
    """Make the SSH key pair where there is none; return whether it was made."""
    path = key_path(cluster_name)
    if path.exists():
        return False
    _make_folder(path.parent)
    command = shutil.which("ssh-keygen")
    if command is None:
        raise ClusterError("no ssh-keygen on this machine; install it: apt-get install openssh-client")
    arguments = [command, "-q", "-t", "ed25519", "-N", "", "-C", f"scaletrain {cluster_name}", "-f", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"ssh-keygen could not make {path}: {done.stderr.strip()}; check the folder")
    return True


def remove_secrets(cluster_name: str) -> None:
    """Remove a cluster's token and key from this machine."""
    for path in (token_path(cluster_name), key_path(cluster_name), Path(f"{key_path(cluster_name)}.pub")):
        path.unlink(missing_ok=True)
    if folder_of(cluster_name).is_dir() and not any(folder_of(cluster_name).iterdir()):
        folder_of(cluster_name).rmdir()


def token_problem(path: Path) -> str | None:
    """Return what is wrong with a token's file, or None; the token itself is never part of the message."""
    if not path.is_file():
        return f"{path}: no token there; run scaletrain cluster init"
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return f"{path}: other users of this machine can read it; run: chmod 600 {path}"
    if len(path.read_text().strip()) < 32:
        return f"{path}: shorter than 32 characters; remove it and run scaletrain cluster init"
    return None


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)

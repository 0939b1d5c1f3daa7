"""image: what is wiped before a machine becomes an image."""

import subprocess
import uuid
from pathlib import Path

from scaletrain.cluster.image import WIPE


def test_wiping_leaves_the_installation_and_no_secret(tmp_path: Path) -> None:
    """The script that runs on the machine, run on a tree like a machine's."""
    canary = uuid.uuid4().hex
    secret = [
        *("home/ubuntu/.ray/auth_token", "home/ubuntu/.ssh/authorized_keys", "home/ubuntu/.ssh/id_ed25519"),
        *("home/ubuntu/ray_bootstrap_key.pem", "home/ubuntu/ray_bootstrap_config.yaml", "home/ubuntu/.aws/credentials"),
        *("home/ubuntu/.config/gcloud/application_default_credentials.json",),
        *("root/.bash_history", "root/.netrc", "etc/ssh/ssh_host_ed25519_key"),
        *("tmp/ray/session/logs/x", "var/log/cloud-init.log"),
    ]
    kept = ["opt/scaletrain/venv/bin/python", "home/ubuntu/scaletrain/pyproject.toml"]
    for name in [*secret, *kept]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(canary if name in secret else "stays")
    systemctl, asked = tmp_path / "bin/systemctl", tmp_path / "asked"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\necho "$*" >>{asked}\n')
    systemctl.chmod(0o755)
    environment = {"ROOT": str(tmp_path), "PATH": f"{systemctl.parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-s"], input=WIPE, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "wiped"
    assert asked.read_text() == "stop scaletrain-worker-watch\n", "it would end the machine meanwhile"
    left = [path for path in tmp_path.rglob("*") if path.is_file() and canary in path.read_text()]
    assert left == []
    assert all((tmp_path / name).read_text() == "stays" for name in kept)

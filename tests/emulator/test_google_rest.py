"""google_rest: Google's APIs in a process without root, reached by any client through its proxy."""

import os
import subprocess
import sys
from pathlib import Path

from google_client import SOURCES, GoogleApis, google_process

PROGRAM = """
from google.cloud import storage
from googleapiclient.discovery import build
compute = build("compute", "v1")
print(compute.projects().get(project="emulated-project").execute()["name"])
print(storage.Client(project="emulated-project").create_bucket("made-by-a-client").name)
"""


def test_a_process_with_its_proxy_and_certificate_finds_it(google: GoogleApis, tmp_path: Path) -> None:
    """As the owner, with the credentials that a login leaves; nothing of the client is changed."""
    credentials = tmp_path / "adc.json"
    kind = '{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}'
    credentials.write_text(kind)
    trusted = dict.fromkeys(("HTTPLIB2_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), google.told["trusted"])
    places = {"https_proxy": f"http://{google.told['proxy']}", "GOOGLE_APPLICATION_CREDENTIALS": str(credentials)}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(SOURCES), **trusted, **places}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["emulated-project", "made-by-a-client"], done.stderr


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """And takes the server of objects along."""
    with google_process(tmp_path) as apis:
        apis.cloud("storage", "buckets.insert", body={"name": "ended-soon"})
        process = apis._process
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
    assert process.returncode == 0
    assert not [each for each in children if Path(f"/proc/{each}").exists()]

"""rehearsal: the shipped cluster file goes through `ray up` as it stands, and broken ones are told why they do not."""

import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from scaletrain.cluster import places
from scaletrain.cluster.rehearsal import Phase, Rehearsal, rehearse
from scaletrain.cluster.rehearsal_verdicts import explain
from scaletrain.emulator.requirements import missing_requirements
from scaletrain.errors import ConfigError

PROJECT = Path(__file__).parents[2]
MISSING = missing_requirements()
rehearsed = pytest.mark.skipif(bool(MISSING), reason=f"no cloud can be emulated here: {'; '.join(MISSING)}")
MISSING_FOR_GOOGLE = missing_requirements("gcp")
rehearsed_on_google = pytest.mark.skipif(
    bool(MISSING_FOR_GOOGLE), reason=f"no cloud can be emulated here: {'; '.join(MISSING_FOR_GOOGLE)}"
)


@pytest.fixture(autouse=True)
def logs_of_failed_ones_go_with_the_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A rehearsal that fails keeps its folder for the user to read."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """The shipped file for AWS, filled as `scaletrain cluster init` fills it."""
    return filled(
        tmp_path,
        "aws",
        bucket="s3://rehearsed/scaletrain",
        region="eu-central-1",
        key_name="scaletrain",
        head_profile="scaletrain-eu-central-1-head",
        worker_profile="scaletrain-eu-central-1-worker",
        security_group="sg-0123456789abcdef0",
        subnet="subnet-0123456789abcdef0",
    )


@pytest.fixture
def shipped_for_google(tmp_path: Path) -> Path:
    """The shipped file for Google Cloud, filled likewise."""
    return filled(
        tmp_path,
        "gcp",
        bucket="gs://rehearsed/scaletrain",
        project_id="rehearsed-project",
        region="europe-west4",
        zone="europe-west4-a",
        disk_types="zones/europe-west4-a/diskTypes",
        head_account="scaletrain-head@rehearsed-project.iam.gserviceaccount.com",
        worker_account="scaletrain-worker@rehearsed-project.iam.gserviceaccount.com",
        subnet="projects/rehearsed-project/regions/europe-west4/subnetworks/default",
        ssh_keys="",
    )


def filled(folder: Path, kind: str, **given: str) -> Path:
    key, token = folder / "ssh_key", folder / "auth_token"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    token.write_text("0123456789abcdef" * 4)
    text = (PROJECT / f"cluster/{kind}.yaml").read_text()
    given |= {"ssh_key": str(key), "token": str(token), "cluster": "scaletrain", "project": str(PROJECT)}
    if "ssh_keys" in given:
        given["ssh_keys"] = f"ubuntu:{Path(f'{key}.pub').read_text().strip()}"
    wanted = {name.partition("/")[0] for name in places.find_places(text)}
    path = folder / f"{kind}.yaml"
    path.write_text(places.fill_places(text, {name: given[name] for name in wanted}, source=path.name))
    return path


def change(path: Path, pattern: str, replacement: str) -> Path:
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count > 0, pattern
    path.write_text(text)
    return path


def failed(rehearsal: Rehearsal) -> Phase:
    """The one phase that failed."""
    (phase,) = [each for each in rehearsal.phases if each.status == "failed"]
    return phase


@rehearsed
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_shipped_file_passes_unchanged(shipped: Path) -> None:
    """Up, a spot worker for a job, the bucket written from it, no port for strangers, down, nothing left."""
    seen: list[Phase] = []
    found = rehearse(shipped, on_phase=seen.append)
    assert found.passed, found.record()
    assert [phase.name for phase in seen] == [
        *("account", "ray up", "head", "worker", "bucket", "ports", "ray down", "nothing left")
    ]
    assert found.changes == ()
    assert "bucket rehearsed is in eu-central-1" in found.assumed
    assert found.logs is None


@rehearsed
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_failing_set_up_command_is_named_with_what_it_said(shipped: Path) -> None:
    """Not the launcher's traceback."""
    change(shipped, r"setup\.sh aws\n", "setup.sh aws\n  - ls /no/such/folder\n")
    phase = failed(rehearse(shipped))
    assert (phase.name, phase.found) == ("ray up", "a command failed on the machine: `ls /no/such/folder`")
    assert "cannot access '/no/such/folder'" in phase.log_line


@rehearsed
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_worker_without_a_profile_cannot_write_the_bucket(shipped: Path) -> None:
    """The reason names the worker type and what to give it."""
    change(shipped, r"\n      IamInstanceProfile: &worker_profile\n.*# init: worker_profile", "")
    change(shipped, r"\n      IamInstanceProfile: \*worker_profile", "")
    phase = failed(rehearse(shipped))
    assert phase.name == "bucket"
    assert "a gpu_spot may not write s3://rehearsed/scaletrain: give its node_config an IamInst" in phase.found


@rehearsed
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_group_that_ray_makes_is_open_to_the_world(shipped: Path) -> None:
    """A stranger's machine reaches SSH, and the verdict says how to shut it."""
    change(shipped, r"\n      SecurityGroupIds: &security_groups\n.*# init: security_group", "")
    change(shipped, r"\n      SecurityGroupIds: \*security_groups", "")
    phase = failed(rehearse(shipped))
    assert phase.name == "ports"
    assert "anybody reaches port 22" in phase.found


@rehearsed
def test_an_unknown_instance_type_is_told_before_anything_starts(shipped: Path) -> None:
    """For every node type, in seconds."""
    change(shipped, r"InstanceType: g6\.xlarge", "InstanceType: g6.huge")
    found = rehearse(shipped)
    assert failed(found).name == "account"
    assert "eu-central-1 has no such instance type: " in failed(found).found
    assert "gpu_ondemand (g6.huge)" in failed(found).found
    assert "gpu_spot (g6.huge)" in failed(found).found
    assert {phase.status for phase in found.phases[1:]} == {"skipped"}


def test_an_unfilled_file_is_refused() -> None:
    """With what to run first."""
    with pytest.raises(ConfigError, match="scaletrain cluster init aws"):
        rehearse(PROJECT / "cluster/aws.yaml")


def test_machines_of_ones_own_are_not_rehearsed(tmp_path: Path) -> None:
    """They are there, and cost nothing."""
    path = tmp_path / "local.yaml"
    path.write_text("cluster_name: c\nprovider: {type: local, head_ip: a, worker_ips: [b]}\nauth: {ssh_user: me}\n")
    with pytest.raises(ConfigError, match=r"provider\.type=local is not emulated, aws and gcp are"):
        rehearse(path)


@rehearsed_on_google
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_shipped_file_for_google_passes_unchanged(shipped_for_google: Path) -> None:
    """Up, a spot worker for a job, the bucket written from it, no port for strangers, down, nothing left."""
    found = rehearse(shipped_for_google)
    assert found.passed, found.record()
    assert found.changes == ()
    assert "bucket rehearsed is in europe-west4" in found.assumed


@rehearsed_on_google
def test_an_unknown_machine_type_is_told_before_anything_starts(shipped_for_google: Path) -> None:
    """For every node type that may run, in seconds."""
    change(shipped_for_google, r"machineType: g2-standard-8", "machineType: g2-huge")
    found = rehearse(shipped_for_google)
    assert failed(found).name == "account"
    assert "europe-west4-a has no such machine type: gpu_spot (g2-huge)" in failed(found).found


LOG = """\
2026-11-24 23:38:20,472\tINFO updater.py:490 -- \x1b[2m(0/2)\x1b[22m \x1b[1mbash setup.sh\x1b[22m
2026-11-24 23:38:21,304\tINFO updater.py:490 -- \x1b[2m(1/2)\x1b[22m \x1b[1mpip install x\x1b[22m
{said}
Shared connection to 54.214.190.221 closed.
2026-11-24 23:38:31,303\tERR updater.py:177 -- New status: update-failed
"""


@pytest.mark.parametrize(
    ("output", "reason", "line"),
    [
        (LOG.format(said="ERROR: No matching distribution\nbye"), "`pip install x`", "ERROR: No matching distribution"),
        (LOG.format(said="gone"), "`pip install x`", "gone"),
        (
            "An error occurred (UnauthorizedOperation) when calling the RunInstances operation: i-1 (head) "
            "is not authorized to perform: iam:PassRole on resource: r",
            "i-1 (head) lacks the right iam:PassRole",
            "iam:PassRole on resource: r",
        ),
        (
            "An error occurred (InvalidGroup.NotFound) when calling the RunInstances operation: no group",
            "AWS refuses RunInstances (InvalidGroup.NotFound): no group",
            "InvalidGroup.NotFound",
        ),
        (
            "<HttpError 403 when requesting https://x returned \"Required 'compute.instances.create' permission for\">",
            "the right compute.instances.create is missing; `scaletrain cluster init gcp`",
            "HttpError 403",
        ),
        ("", "the launcher gave up", "it printed nothing"),
    ],
)
def test_reasons_are_found_in_logs(output: str, reason: str, line: str) -> None:
    """The cause in the user's words, and the line that says it."""
    verdict = explain(output)
    assert reason in verdict.reason
    assert line in verdict.line

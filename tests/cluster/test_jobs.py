"""jobs, from the command line to the cluster: a real `ray up` of one machine with a token, SSH, a bucket and a run."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import TINY, descendants
from one_machine import BUCKET, Machine, missing

CANARY = "a-secret-that-must-not-be-seen"
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


class Cluster:
    """A cluster of one machine that is up; `call` runs a scaletrain command as on a laptop beside it."""

    def __init__(self, machine: Machine, file: str) -> None:
        self.machine = machine
        self.file = file
        (machine.folder / "tiny.yaml").write_text(TINY.format(root=BUCKET))
        (machine.folder / "my_steps.py").write_text("def keep(conversation):\n    return conversation\n")

    def call(self, *arguments: str, exit_code: int = 0, **environment: str) -> str:
        """Run a command to its end; returns its stdout, or its stderr where another exit code is expected."""
        done = self.machine.run("scaletrain", *arguments, **environment)
        assert done.returncode == exit_code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if exit_code == 0 else done.stderr

    def submit(self, *words: str, exit_code: int = 0) -> str:
        return self.call("submit", "--cluster", self.file, "--", *words, exit_code=exit_code)

    def send(self, *words: str) -> str:
        """Submit without following; returns the job's id."""
        text = self.call("submit", "--cluster", self.file, "--no-follow", "--json", "--", *words)
        return str(json.loads(text)["job"])

    def jobs(self) -> dict[str, dict[str, object]]:
        found = json.loads(self.call("jobs", "--cluster", self.file, "--json"))
        return {job["id"]: job for job in found}

    def committed(self, name: str) -> int:
        keys = "\n".join(self.machine.objects())
        steps = re.findall(rf"runs/{name}/checkpoints/step-(\d+)/manifest\.json", keys)
        return max((int(step) for step in steps), default=0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """`ray up` of one machine, by SSH to itself."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        machine.succeed("python", "-c", "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')")
        file = machine.write_cluster_file()
        machine.succeed("ray", "up", "-y", file)
        yield Cluster(machine, file)
    finally:
        machine.end()


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_run_is_submitted_followed_and_succeeds(cluster: Cluster) -> None:
    """The log is shown, the exit code is the job's, and the run is in the bucket, with what was submitted.

    A step of the user's own comes along, as does a secret that is named by reference.
    """
    put = f"boto3.client('ssm').put_parameter(Name='/hf-token', Value='{CANARY}', Type='SecureString')"
    cluster.machine.succeed("python", "-c", f"import boto3; {put}")
    options = ("--secret", "HF_TOKEN=ssm:/hf-token", "--env", "NCCL_DEBUG=WARN")
    words = ("train", "tiny.yaml", "name=first", "train.steps=4", "data.cleaning=[fix_unicode, 'my_steps:keep']")
    shown = cluster.call("submit", "--cluster", cluster.file, *options, "--", *words)
    assert "runs/first is at step 4 of 4" in shown
    assert cluster.committed("first") == 4
    assert any(re.fullmatch(r"root/runs/first/submitted/first-.*\.yaml", key) for key in cluster.machine.objects())


def test_a_failed_job_ends_submit_with_1(cluster: Cluster) -> None:
    """The reason stands in the log, and the command's own exit code in the message."""
    errors = cluster.submit("train", "tiny.yaml", "name=failing", "train.device=cuda", exit_code=1)
    assert re.search(r"the job failing-\S+ failed with exit code \d", errors), errors


def test_bad_input_ends_submit_with_2_and_nothing_is_sent(cluster: Cluster) -> None:
    """Every problem is told here, without a job there."""
    before = cluster.jobs()
    errors = cluster.submit("train", "tiny.yaml", "storage.root=bucket", "train.steps=none", exit_code=2)
    assert "2 problems" in errors or "train.steps" in errors
    assert cluster.jobs() == before


def test_ctrl_c_leaves_the_job_running_and_stop_commits_first(cluster: Cluster) -> None:
    """Ctrl-C says how to go on; following again picks up; stop waits for the commit, and a submit resumes from it."""
    words = ("train", "tiny.yaml", "name=long", "train.steps=5000", "checkpoint.every_steps=1000", "checkpoint.keep=1")
    process = cluster.machine.start("scaletrain", "submit", "--cluster", cluster.file, "--", *words)
    wait_for(lambda: any(job["labels"]["run"] == "long" for job in cluster.jobs().values()))  # type: ignore[index]
    wait_for(lambda: any("runs/long/attempts/attempt-0001" in key for key in cluster.machine.objects()))
    time.sleep(3)
    for each in descendants(process.pid):  # as a terminal does: the command and its ssh
        each.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "goes on" in errors and "scaletrain logs" in errors
    (job_id,) = [name for name, job in cluster.jobs().items() if job["labels"]["run"] == "long"]  # type: ignore[index]
    assert cluster.jobs()[job_id]["outcome"] == "running"

    assert cluster.send(*words) == job_id  # the same again is the same job
    again = cluster.submit(*words, "train.learning_rate=1.0e-4", exit_code=2)
    assert f"being trained by the job {job_id}, with another configuration" in again
    following = cluster.machine.start("scaletrain", "logs", "long", "-f", "--cluster", cluster.file)
    assert "is running: stop it" in cluster.call("down", cluster.file, exit_code=2)
    for ssh in descendants(following.pid, r"^\S*\bssh -T "):
        ssh.kill()  # the network is gone for a moment
    status = json.loads(cluster.call("status", "--cluster", cluster.file, "--json"))
    assert [job["id"] for job in status["jobs"]] == [job_id]
    assert [machine["is_head"] for machine in status["state"]["machines"]] == [True]

    assert cluster.call("stop", "long", "--cluster", cluster.file) == f"{job_id}: stopped\n"
    step = cluster.committed("long")
    assert 0 < step < 5000
    shown, _ = following.communicate(timeout=60)
    assert following.returncode == 1
    assert shown.count("Running entrypoint") == 1 and "saved; the same command goes on" in shown

    resumed = cluster.submit("train", "tiny.yaml", "name=long", f"debug.stop_after={step + 1}", *words[3:])
    assert f"is at step {step + 1} of 5000" in resumed


def test_stop_now_ends_a_job_at_once(cluster: Cluster) -> None:
    """For whoever cannot wait."""
    job_id = cluster.send("train", "tiny.yaml", "name=hasty", "train.steps=5000")
    wait_for(lambda: cluster.jobs()[job_id]["outcome"] == "running")
    assert cluster.call("stop", job_id, "--now", "--cluster", cluster.file) == f"{job_id}: stopped\n"


def test_secrets_are_nowhere(cluster: Cluster) -> None:
    """Neither the token nor a job's secret is in Ray's files or the jobs' metadata."""
    token = (cluster.machine.folder / "auth_token").read_text()
    assert cluster.machine.run("grep", "-rlF", "-e", token, "-e", CANARY, "/tmp/ray/").stdout == ""
    described = cluster.call("jobs", "--cluster", cluster.file, "--json")
    assert token not in described and CANARY not in described


def test_another_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """The message names the file that the token was read from or should be."""
    other = tmp_path / "token"
    other.write_text("f" * 64)
    errors = cluster.call("jobs", "--cluster", cluster.file, exit_code=1, RAY_AUTH_TOKEN_PATH=str(other))
    assert "refused the token" in errors


def test_a_cluster_that_is_not_up_says_what_to_run(cluster: Cluster) -> None:
    """And nothing else happens."""
    path = cluster.machine.write_cluster_file("absent")
    assert f"run: ray up {path}" in cluster.call("jobs", "--cluster", path, exit_code=1)


def test_down_ends_the_cluster_and_says_what_is_left(cluster: Cluster) -> None:
    """The last test: a running job is stopped with its commit, then the machines go; the bucket stays."""
    cluster.send("train", "tiny.yaml", "name=last", "train.steps=5000", "checkpoint.every_steps=1000")
    wait_for(lambda: any("runs/last/attempts/attempt-0001" in key for key in cluster.machine.objects()))
    assert cluster.call("down", cluster.file, "--yes") == "one is down\n"
    assert cluster.committed("last") > 0
    assert "ray up" in cluster.call("status", "--cluster", cluster.file, exit_code=1)
    assert cluster.machine.run("pgrep", "-x", "raylet").returncode == 1

"""The shipped cluster/aws.yaml, from an empty account to nothing left: two spot workers, one lost on the way.

Everything is what a user has: `scaletrain cluster init`, the unmodified `ray up`, `scaletrain submit`, on an emulated
EC2 that enforces roles, security groups and IMDSv2. Only the idle time-out is shortened, and the image of the machines
has DeepSpeed's extension compiled.
"""

import intruder
import orjson
import pytest
from account import ROOT, Account

from commands import wait_for

SECRET, PLANTED = "hf_canaryInTheParameterStore", "canary-in-a-file"
REFERENCE = "HF_TOKEN=ssm:/scaletrain/hf-token"
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_the_shipped_file_from_an_empty_account_to_nothing_left(account: Account) -> None:
    """Init, check, up, submit, a spot loss in mid-run, the replacement, exact continuation, idle, down, destroy.

    On the way nothing answers a stranger, or whoever lacks the token, and a job's secret is nowhere to be found.
    """
    cloud = account.cloud
    cloud.aws("ssm", "put_parameter", Name="/scaletrain/hf-token", Value=SECRET, Type="SecureString")
    account.init("--ssh-from", f"{cloud.laptop_address}/32")
    assert "nothing to do" in account.init("--ssh-from", f"{cloud.laptop_address}/32")
    account.run("ray", "up", "-y", "--no-config-cache", str(account.file))
    assert account.workers() == []

    # Long enough to lose a machine on the way; a worker takes all CPUs of a machine, so there are two.
    train = ["train", str(account.config), "train.steps=60", "scaling.cpus_per_worker=8"]
    job = account.submit(*train, options=["--secret", REFERENCE], log="submit.log")
    try:
        wait_for(lambda: account.keys("runs/tiny/checkpoints/step-00000008/manifest"), "a commit", limit_s=300)
        assert [(each.market, each.node_type) for each in account.workers()] == [("spot", "cpu")] * 2
        lost = account.workers()[-1]
        cloud.preempt(lost, notice_s=30)
        wait_for(lambda: len({each.id for each in account.workers()} - {lost.id}) == 2, "a replacement", limit_s=60)
        nobody_gets_in(account)
        assert job.wait(timeout=300) == 0, account.read("submit.log")[-6000:]
    finally:
        job.kill()
    the_secret_is_nowhere(account)
    told = account.read("submit.log")
    assert SECRET not in told
    assert "with other workers" in told and "a worker was lost" not in told
    assert "is at step 60 of 60" in told

    proof = account.proof()
    assert (proof["step"], proof["attempt"], proof["world_size"], proof["zero_stage"]) == (60, 2, 2, 2)
    verified = account.scaletrain("verify", f"{ROOT}/runs/tiny", "--json")
    verdict = orjson.loads(verified[verified.index("{") :])
    # The state was saved within the notice: not one step was done again.
    assert (verdict["steps"], verdict["problems"], verdict["done_again"]) == (60, [], 0)

    wait_for(lambda: not account.workers(), "idle workers go", limit_s=120)
    account.scaletrain("down", str(account.file), "--yes")
    wait_for(lambda: not cloud.machines(), "no machine is left", limit_s=60)
    account.init("--destroy", "--destroy-bucket")
    assert cloud.aws("s3", "list_buckets")["Buckets"] == []
    groups = cloud.aws("ec2", "describe_security_groups")["SecurityGroups"]
    assert [each["GroupName"] for each in groups if each["GroupName"] != "default"] == []


def nobody_gets_in(account: Account) -> None:
    """Nothing but SSH answers from outside; inside, where Ray's ports are open, nobody without the token is served."""
    assert intruder.reached_from_outside(account) == {"stranger": set(), "laptop": {22}}
    head, worker = account.head(), account.workers()[0]
    for inside, other, ports in ((worker, head, {6379, 10001, 52365}), (head, worker, {52365})):
        told = intruder.told_without_token(account, other, inside=inside)
        assert {word for words in told.values() for word in words} <= {"refused", "silent", "metrics"}, told
        assert ports <= {port for port, words in told.items() if "refused" in words}, told
    for machine in (head, worker):
        assert SECRET not in intruder.command_lines(account, machine)
    assert REFERENCE in intruder.command_lines(account, head)


def the_secret_is_nowhere(account: Account) -> None:
    """Not in Ray's files, the jobs' metadata or the bucket, where the same search finds what was planted."""
    head, bucket = account.head(), "scaletrain-scenario"
    for machine in (*account.workers(), head):  # the idle workers go soon
        planted = intruder.plant(account, machine, PLANTED)
        assert intruder.files_with(account, machine, [SECRET, PLANTED]) == [planted]
    metadata = intruder.job_metadata(account, head)
    assert REFERENCE in metadata and SECRET not in metadata
    account.cloud.aws("s3", "put_object", Bucket=bucket, Key="team/planted", Body=f"before {PLANTED} after")
    assert intruder.objects_with(account, bucket, [SECRET, PLANTED]) == ["team/planted"]

"""What goes wrong with machines on AWS, one thing after the other on one cluster: a run loses nothing by it.

About ten minutes on two busy cores, most of it three starts of a training group.
"""

import pytest
from account import Account

from commands import wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]


def test_no_capacity_an_unplugged_machine_and_a_lost_head(account: Account) -> None:
    """The other group is taken whole; a silent machine is replaced; a new head goes on from the bucket."""
    cloud = account.cloud
    cloud.fail_launches("InsufficientInstanceCapacity", count=100_000, instance_type="m7i.2xlarge")
    account.init("--ssh-from", f"{cloud.laptop_address}/32")
    account.run("ray", "up", "-y", "--no-config-cache", str(account.file))
    options = ["train.steps=5000", "scaling.cpus_per_worker=4", "scaling.wait_minutes=1.5"]
    train = ["train", str(account.config), *options]

    job = account.submit(*train, log="first.log")
    try:
        wait_for(lambda: account.newest_commit() >= 4, "a commit of the group that can be had", limit_s=400)
        assert [each.node_type for each in account.workers()] == ["gpu_spot"] * 2
        assert "InsufficientInstanceCapacity" in account.read("first.log")

        lost = account.workers()[-1]
        cloud.cut(lost)
        wait_for(lambda: account.keys("runs/tiny/attempts/attempt-0002"), "a second attempt", limit_s=200)
        before = account.newest_commit()
        wait_for(lambda: account.newest_commit() > before, "a commit of the second attempt", limit_s=200)
        assert lost.id not in {each.id for each in account.workers()}

        head = account.head()
        cloud.call("ec2", "terminate_instances", InstanceIds=[head.id])
        wait_for(lambda: head.id not in cloud.machines(), "the head is gone", limit_s=60)
    finally:
        job.kill()

    account.run("ray", "up", "-y", "--no-config-cache", str(account.file))
    before = account.newest_commit()
    job = account.submit(*train, log="second.log")
    try:
        wait_for(lambda: account.newest_commit() > before, "a commit after the new head", limit_s=400)
        assert f"going on from step {before}" in account.read("second.log")
        account.scaletrain("stop", "tiny", "--cluster", str(account.file))
    finally:
        job.kill()

    proof = account.proof()
    assert proof["steps"] == list(range(1, proof["step"] + 1))
    assert proof["ledger_hash"] == proof["committed_hash"]
    assert proof["step"] > before
    account.scaletrain("down", str(account.file), "--yes")
    wait_for(lambda: not cloud.machines(), "no machine is left", limit_s=60)

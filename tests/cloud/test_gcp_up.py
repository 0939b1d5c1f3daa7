"""The shipped cluster/gcp.yaml, from a project with nothing in it to nothing left: two Spot VMs, one lost on the way.

Everything is what a user has: `scaletrain cluster init`, the unmodified `ray up`, `scaletrain submit`, on an emulated
Google Cloud that enforces roles, their conditions and firewall rules. Only the idle time-out is shortened, and the
image of the machines has DeepSpeed's extension compiled.
"""

import intruder
import pytest
from account import Account

from commands import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_the_shipped_file_from_an_empty_project_to_nothing_left(google_account: Account) -> None:
    """Init, up, submit, a preemption in mid-run, the replacement, exact continuation, idle, down, destroy.

    On the way nothing answers a stranger, and the laptop reaches nothing but SSH.
    """
    account, cloud = google_account, google_account.cloud
    account.init("--ssh-from", f"{cloud.laptop_address}/32")
    assert "nothing to do" in account.init("--ssh-from", f"{cloud.laptop_address}/32")
    account.run("ray", "up", "-y", "--no-config-cache", str(account.file))
    assert account.workers() == []

    # A worker takes all CPUs of a machine, so there are two.
    train = ["train", str(account.config), "train.steps=60", "scaling.cpus_per_worker=8"]
    job = account.submit(*train, log="submit.log")
    try:
        wait_for(lambda: account.keys("runs/tiny/checkpoints/step-00000008/manifest"), "a commit", limit_s=300)
        assert [(each.market, each.node_type) for each in account.workers()] == [("spot", "cpu")] * 2
        lost = account.workers()[-1]
        cloud.preempt(lost, notice_s=30)
        wait_for(lambda: len({each.id for each in account.workers()} - {lost.id}) == 2, "a replacement", limit_s=90)
        assert intruder.reached_from_outside(account) == {"stranger": set(), "laptop": {22}}
        assert job.wait(timeout=300) == 0, account.read("submit.log")[-6000:]
    finally:
        job.kill()
    assert "is at step 60 of 60" in account.read("submit.log")

    proof = account.proof()
    assert (proof["step"], proof["world_size"], proof["zero_stage"]) == (60, 2, 2)
    assert proof["steps"] == list(range(1, 61))
    assert proof["ledger_hash"] == proof["committed_hash"]

    wait_for(lambda: not account.workers(), "idle workers go", limit_s=120)
    account.scaletrain("down", str(account.file), "--yes")
    wait_for(lambda: not cloud.machines() and not cloud.instances(), "no machine is left", limit_s=60)
    account.init("--destroy", "--destroy-bucket")
    nothing_is_left(account)


def nothing_is_left(account: Account) -> None:
    """No bucket, no disk, no account that is on, no rule but the project's own."""
    google = account.cloud.google
    assert "items" not in google("storage", "buckets.list")
    assert not google("compute", "disks.aggregatedList")["items"]
    name = f"projects/{account.cloud.project}"
    accounts = google("iam", "projects.serviceAccounts.list", name=name).get("accounts", [])
    assert [each["email"] for each in accounts if not each.get("disabled")] == []
    rules = google("compute", "firewalls.list")["items"]
    assert [each["name"] for each in rules if not each["name"].startswith("default-")] == []

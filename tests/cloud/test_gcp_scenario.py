"""The shipped cluster/gcp.yaml, from a project with nothing in it to nothing left: two Spot VMs, one lost on the way.

See `journey`; the emulated Google Cloud enforces roles, their conditions and firewall rules. Unlike on AWS, the run is
elastic: it goes on with what is left, and takes the replacement in when that has come.
"""

import journey
import pytest
from account import Account

from commands import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ELASTIC = ("scaling.workers={min: 1, max: 2}", "train.steps=100000", "checkpoint.every_steps=20")


def test_the_shipped_file_from_an_empty_project_to_nothing_left(google_account: Account) -> None:
    """Init, up, doctor, submit, a preemption in mid-run, on with one worker, on with two, stop, down, destroy.

    On the way nothing answers a stranger, or whoever lacks the token, and a job's secret is nowhere to be found.
    """
    account = google_account
    reference = account.keep_secret(journey.SECRET)
    journey.bring_up(account)
    the_nodes_are_ready(account)
    with journey.training(account, reference, *ELASTIC) as job:
        lost = journey.lose_a_spot_machine(account)
        journey.wait_for_replacement(account, lost)
        wait_for(lambda: account.keys("runs/tiny/attempts/attempt-0003"), "an attempt with both", limit_s=200)
        before = account.newest_commit()
        journey.nobody_gets_in(account, reference)
        wait_for(lambda: account.newest_commit() > before, "a commit with both", limit_s=200)
        assert "tiny" in account.scaletrain("status", "--cluster", str(account.file))
        account.scaletrain("stop", "tiny", "--cluster", str(account.file))
        assert account.exit_code(job, log="submit.log", limit_s=100) == 1  # not what was submitted: it was stopped
    journey.the_secret_is_nowhere(account, reference)
    told = account.read("submit.log")
    assert "with other workers" in told and "a worker was lost" not in told
    assert "stopped at step" in told, told[-6000:]

    proved = journey.verdict(account)
    assert (proved["attempt"], proved["world_size"], proved["zero_stage"]) == (3, 2, 2)
    assert [workers for workers, _ in proved["world_sizes"]] == [2, 1, 2]
    # The state was saved within Google's 30 s, and for the replacement, and at the stop: no step was done again.
    assert (proved["problems"], proved["done_again"]) == ([], 0)

    journey.take_down(account)
    nothing_is_left(account)


def the_nodes_are_ready(account: Account) -> None:
    """What `doctor --cluster` sends, which has two machines come."""
    doctor = ["doctor", str(account.config), "scaling.cpus_per_worker=8", "--nodes"]
    job = account.submit(*doctor, log="doctor.log")
    assert account.exit_code(job, log="doctor.log", limit_s=300) == 0, account.read("doctor.log")[-6000:]
    assert "2 workers together" in account.read("doctor.log")


def nothing_is_left(account: Account) -> None:
    """No instance, no bucket, no disk, no account that is on, no rule but the project's own."""
    call = account.cloud.call
    assert account.cloud.instances() == []
    assert "items" not in call("storage", "buckets.list")
    assert not call("compute", "disks.aggregatedList")["items"]
    name = f"projects/{account.cloud.project}"
    accounts = call("iam", "projects.serviceAccounts.list", name=name).get("accounts", [])
    assert [each["email"] for each in accounts if not each.get("disabled")] == []
    rules = call("compute", "firewalls.list")["items"]
    assert [each["name"] for each in rules if not each["name"].startswith("default-")] == []

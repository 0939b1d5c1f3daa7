"""A sweep of twelve trials on the shipped cluster/aws.yaml: machines come for it and go, and some are taken away.

About eight minutes on two busy cores.
"""

import subprocess
import sys
from typing import Any

import journey
import orjson
import pytest
from account import Account

from commands import wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500)]

TRIALS, STEPS, LIMIT_USD = 12, 40, 1.0
FIELDS = (
    "scaling.workers=1",
    "scaling.cpus_per_worker=8",  # a machine for each trial
    f"train.steps={STEPS}",
    "sweep={parameters: {train.learning_rate: {log: [1.0e-4, 1.0e-2]}}, "
    f"trials: {TRIALS}, at_once: 3, metric: loss, limit: {{usd: {LIMIT_USD}}}}}",
)
# What the sweep left in the bucket: each trial's record, and what `verify` says of its run.
PROOF = """
import sys, orjson
from dataclasses import asdict
from scaletrain.layout import RunLayout
from scaletrain.sweep.records import SweepLayout, read_trials
from scaletrain.verify import verify_run
layout = SweepLayout(sys.argv[1], "tiny")
proved = [
    {"state": each.state, "cost_usd": each.cost_usd, **asdict(verify_run(RunLayout(layout.root, each.run)))}
    for each in read_trials(layout).values()
]
print(orjson.dumps(proved, default=str).decode())
"""
PAGE = "import sys; from scaletrain import storage; sys.stdout.buffer.write(storage.read_bytes(sys.argv[1]))"


def test_twelve_trials_from_no_machine_to_three_and_back(account: Account) -> None:
    """Two spot machines are lost, and the head: every trial is finished, every ledger exact, the limit kept."""
    cloud = account.cloud
    journey.bring_up(account)
    first = submit(account, "first.log")
    try:
        lose_a_busy_machine(account, first, "first.log", after=1)
        wait_until_over(account, first, "first.log", trials=4)
        assert len(account.workers()) <= 3
        head = account.head()
        cloud.call("ec2", "terminate_instances", InstanceIds=[head.id])
        wait_for(lambda: head.id not in cloud.machines(), "the head is gone", limit_s=60)
    finally:
        first.kill()
    before = {key for key in attempts(account) if ".0000/" in key}

    account.run("ray", "up", "-y", "--no-config-cache", str(account.file))
    second = submit(account, "second.log")
    try:
        lose_a_busy_machine(account, second, "second.log", after=6)
        assert account.exit_code(second, log="second.log", limit_s=600) == 0, account.read("second.log")[-6000:]
    finally:
        second.kill()
    wait_for(lambda: not account.workers(), "idle machines go", limit_s=120)

    proved = orjson.loads(account.run(sys.executable, "-c", PROOF, account.root).strip().splitlines()[-1])
    assert [each["state"] for each in proved] == ["finished"] * TRIALS
    assert [(each["problems"], each["steps"]) for each in proved] == [([], STEPS)] * TRIALS
    assert {key for key in attempts(account) if ".0000/" in key} == before  # what was over was not touched again
    page = account.run(sys.executable, "-c", PAGE, f"{account.root}/sweeps/tiny/report.html")
    (account.folder / "sweep.html").write_text(page)
    assert "from wanted to there" in page
    assert 0 < sum(each["cost_usd"] for each in proved) <= LIMIT_USD
    machines = shown(account)["machines"]
    assert machines["most"] == 3
    assert machines["lost"] >= 2  # on a machine that is busy beyond that, Ray may lose one more
    assert machines["usd"] > machines["unused_usd"] > 0
    assert len(machines["waits_s"]) >= 3 + 2
    again = max(proved, key=lambda each: each["attempts"])
    assert again["attempts"] >= 2
    account.scaletrain("report", again["run"], "--root", account.root, "--out", str(account.folder / "trial.html"))
    assert "Cost" in (account.folder / "trial.html").read_text()
    journey.take_down(account)


def submit(account: Account, log: str) -> "subprocess.Popen[bytes]":
    return account.submit("sweep", str(account.config), *FIELDS, log=log)


def attempts(account: Account) -> list[str]:
    """The keys of what the trials' runs say of their attempts."""
    return [key for key in account.keys("runs/tiny.") if "/attempts/" in key]


def shown(account: Account) -> Any:
    told = account.scaletrain("sweep", "show", "tiny", "--root", account.root, "--json")
    return orjson.loads(told[told.index("{") :])


def wait_until_over(account: Account, job: "subprocess.Popen[bytes]", log: str, *, trials: int) -> None:
    """Wait until so many trials are over, by what the command says."""

    def is_so() -> bool:
        assert job.poll() is None, account.read(log)[-6000:]
        return (
            account.read("first.log").count("has finished")
            + (account.read(log).count("has finished") if log != "first.log" else 0)
            >= trials
        )

    wait_for(is_so, f"{trials} trials that are over", limit_s=400)


def lose_a_busy_machine(account: Account, job: "subprocess.Popen[bytes]", log: str, *, after: int) -> None:
    """Once so many trials are over and three machines are there, announce the end of one of them, 30 s ahead."""
    wait_until_over(account, job, log, trials=after)
    wait_for(lambda: len(account.workers()) == 3, "three machines", limit_s=200)
    lost = account.workers()[0]
    account.cloud.preempt(lost, notice_s=30)
    wait_for(lambda: lost.id not in {each.id for each in account.workers()}, "the machine is taken", limit_s=60)

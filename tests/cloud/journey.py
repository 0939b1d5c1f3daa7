"""The life of a cluster that both clouds' scenarios walk, step by step, with what has to hold at each.

Everything is what a user has: `scaletrain cluster init`, the unmodified `ray up`, `scaletrain submit` and the rest.
Only the idle time-out is shortened, and the image of the machines has DeepSpeed's extension compiled.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import intruder
import orjson
from account import Account

from commands import wait_for
from scaletrain.emulator.emulated_cloud import Instance

SECRET, PLANTED = "hf_canaryThatNobodyMaySee", "canary-in-a-file"


def bring_up(account: Account) -> None:
    """From an empty account to a head without workers; a second `init` finds nothing to do."""
    from_laptop = ("--ssh-from", f"{account.cloud.laptop_address}/32")
    account.init(*from_laptop)
    assert "nothing to do" in account.init(*from_laptop)
    account.run("ray", "up", "-y", "--no-config-cache", str(account.file))
    assert account.workers() == []


@contextmanager
def training(account: Account, reference: str, *settings: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Train with a secret, followed in submit.log for the time of the block; a worker takes all CPUs of a machine."""
    train = ["train", str(account.config), "scaling.cpus_per_worker=8", *settings]
    job = account.submit(*train, options=["--secret", reference], log="submit.log")
    try:
        yield job
    finally:
        job.kill()


def lose_a_spot_machine(account: Account) -> Instance:
    """Once the run has committed on two spot machines, announce the end of one of them, 30 s ahead."""
    wait_for(lambda: account.newest_commit() > 0, "a commit", limit_s=300)
    assert [(each.market, each.node_type) for each in account.workers()] == [("spot", "cpu")] * 2
    # worker_watch.sh, which ends workers that were left alone, knows the head by this file.
    look = ["test", "-e", "/home/ubuntu/ray_bootstrap_config.yaml"]
    machines = [account.head(), *account.workers()]
    assert [account.cloud.on_machine(each, look).returncode for each in machines] == [0, 1, 1]
    lost = account.workers()[-1]
    account.cloud.preempt(lost, notice_s=30)
    return lost


def wait_for_replacement(account: Account, lost: Instance) -> None:
    """Wait until there are two workers without the one that is lost."""
    wait_for(lambda: len({each.id for each in account.workers()} - {lost.id}) == 2, "a replacement", limit_s=120)


def nobody_gets_in(account: Account, reference: str) -> None:
    """Nothing but SSH answers from outside; inside, where Ray's ports are open, nobody without the token is served.

    No process has the secret in its arguments, where the head's have what it is named by.
    """
    assert intruder.reached_from_outside(account) == {"stranger": set(), "laptop": {22}}
    head, worker = account.head(), account.workers()[0]
    for inside, other, ports in ((worker, head, {6379, 10001, 52365}), (head, worker, {52365})):
        told = intruder.told_without_token(account, other, inside=inside)
        assert {word for words in told.values() for word in words} <= {"refused", "silent", "metrics"}, told
        assert ports <= {port for port, words in told.items() if "refused" in words}, told
    for machine in (head, worker):
        assert SECRET not in intruder.command_lines(account, machine)
    assert reference in intruder.command_lines(account, head)


def the_secret_is_nowhere(account: Account, reference: str) -> None:
    """Not in Ray's files, the jobs' logs and metadata, or the bucket, where the same search finds what was planted."""
    head = account.head()
    for machine in (*account.workers(), head):  # the idle workers go soon
        planted = intruder.plant(account, machine, PLANTED)
        assert intruder.files_with(account, machine, [SECRET, PLANTED]) == [planted]
    metadata = intruder.job_metadata(account, head)
    assert reference in metadata and SECRET not in metadata
    logs = account.scaletrain("logs", "tiny", "--cluster", str(account.file))
    for told in (logs, account.read("submit.log")):
        assert "at step" in told and SECRET not in told
    assert intruder.objects_with(account, [SECRET, PLANTED], plant=PLANTED) == [f"{account.root}/planted"]


def verdict(account: Account) -> Any:
    """What `verify` says of the run, once the ledger's own chain has been followed to the newest commit."""
    proof = account.proof()
    assert proof["steps"] == list(range(1, proof["step"] + 1))
    assert proof["ledger_hash"] == proof["committed_hash"]
    told = account.scaletrain("verify", f"{account.root}/runs/tiny", "--json")
    return {**proof, **orjson.loads(told[told.index("{") :])}


def take_down(account: Account) -> None:
    """Idle workers go, `down` ends the rest, nothing goes on costing, and `init` takes back what it had made."""
    wait_for(lambda: not account.workers(), "idle workers go", limit_s=120)
    account.scaletrain("down", str(account.file), "--yes")
    wait_for(lambda: not account.cloud.machines(), "no machine is left", limit_s=60)
    told = account.scaletrain("cluster", "sweep-leaks", str(account.file), "--json")
    assert orjson.loads(told[told.index("{") :]) == {"leaks": [], "living": []}
    account.init("--destroy", "--destroy-bucket")

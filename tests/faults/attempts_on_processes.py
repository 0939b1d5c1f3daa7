"""Attempts of a run on real processes without Ray, which a test freezes, kills and deceives while they train.

A process may be armed before it trains: with a callable that gets its worker and job, and that is a module's function
(or a partial of one), since it travels to the process.
"""

import multiprocessing as mp
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from commands import wait_for
from scaletrain import attempts, checkpoint, storage
from scaletrain.config_file import dump_config
from scaletrain.layout import RunLayout
from workers import _CONTEXT, Prepared, make_job

SETTINGS = {"train__steps": 12, "checkpoint__every_steps": 3}
KILL, STOP, CONTINUE = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
_LIMIT_S = 120
_MARK = "RUN_OF_A_FAULT_TEST"  # in the environment of every persister, which inherits it from its worker

Arm = Callable[[Any, Any], None]


@dataclass(frozen=True)
class Ended:
    """How a worker ended: with the step that was committed last, with an error, or (neither) by a signal."""

    step: int | None
    error: BaseException | None
    exit_code: int | None


class Attempt:
    """One attempt of a run, from the start of its workers.

    `environments` are of ranks and what they start; a rank that is `spawned` has it from its first moment, as
    LD_PRELOAD needs it, and takes longer to start.
    """

    def __init__(
        self,
        prepared: Prepared,
        name: str,
        *,
        workers: int = 2,
        arm: Arm | None = None,
        environments: Mapping[int, Mapping[str, str]] | None = None,
        spawned: tuple[int, ...] = (),
        **overrides: object,
    ) -> None:
        self.run = RunLayout(prepared.root, name)
        self.committed_before = checkpoint.latest(self.run)
        nonce = attempts.new_nonce()
        self.number = attempts.claim(self.run, nonce=nonce)
        made = make_job(prepared, name, workers=workers, attempt=self.number, **{**SETTINGS, **overrides})
        job = replace(made, nonce=nonce)
        storage.write_text(self.run.config, dump_config(job.config))
        self._folder = tempfile.TemporaryDirectory()
        rendezvous = Path(self._folder.name) / "rendezvous"
        self._lines: list[Connection] = []
        self._ended: dict[int, Ended] = {}
        self.processes = []
        for rank in range(workers):
            environment = (environments or {}).get(rank, {})
            context = mp.get_context("spawn") if rank in spawned else _CONTEXT
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_main, args=(rank, workers, rendezvous, theirs, job, arm, environment), daemon=True
            )
            with pytest.MonkeyPatch.context() as patch:
                for key, value in environment.items() if rank in spawned else ():
                    patch.setenv(key, value)
                process.start()
            theirs.close()
            self._lines.append(ours)
            self.processes.append(process)

    def signal(self, number: int) -> None:
        """Send a signal to all workers and persisters."""
        for pid in (*(process.pid for process in self.processes), *(each.pid for each in persisters(self.run))):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait_until_frozen(self, ranks: tuple[int, ...]) -> None:
        """Wait until the workers of some ranks have been stopped by a signal."""
        frozen = [psutil.Process(self.processes[rank].pid) for rank in ranks]
        wait_for(lambda: all(each.status() == psutil.STATUS_STOPPED for each in frozen), "frozen workers", limit_s=120)

    def freeze_for(self, seconds: float, *, rank: int) -> None:
        """Wait until a worker was stopped by a signal, and let it go on some time later."""
        self.wait_until_frozen((rank,))
        time.sleep(seconds)
        os.kill(self.processes[rank].pid, CONTINUE)

    def wait(self, *, went_on_from: int | None = None) -> list[Ended]:
        """Wait for all workers to end, and check that they had gone on from the newest commit (or another one)."""
        found = [self.wait_for_rank(rank) for rank in range(len(self.processes))]
        self._folder.cleanup()
        begun = attempts.read_attempts(self.run).resumed_from
        if self.number in begun:
            newest = self.committed_before.step if self.committed_before else 0
            least = newest if went_on_from is None else went_on_from
            assert begun[self.number] >= least, f"it went on from step {begun[self.number]}, {least} was committed"
        return found

    def wait_for_rank(self, rank: int) -> Ended:
        """Wait for one worker to end."""
        if rank in self._ended:
            return self._ended[rank]
        process, line = self.processes[rank], self._lines[rank]
        told = None
        try:
            if line.poll(_LIMIT_S):
                told = line.recv()
        except EOFError:
            pass  # it was killed
        process.join(_LIMIT_S)
        if process.exitcode is None:
            self.signal(KILL)
            raise AssertionError(f"rank {rank} has not ended in {_LIMIT_S} s")
        error = told if isinstance(told, BaseException) else None
        self._ended[rank] = Ended(told if isinstance(told, int) else None, error, process.exitcode)
        return self._ended[rank]


def finish(
    prepared: Prepared, name: str, *, workers: int = 2, went_on_from: int | None = None, **overrides: object
) -> None:
    """Go on with a run to its last step, undisturbed; `went_on_from` is the step that it has to begin at, if not the
    newest commit's."""
    attempt = Attempt(prepared, name, workers=workers, **overrides)
    for ended in attempt.wait(went_on_from=went_on_from):
        if ended.error is not None:
            raise ended.error
        settings = {**SETTINGS, **overrides}
        assert ended.step == settings.get("debug__stop_after", settings["train__steps"]), ended


def persisters(run: RunLayout) -> list[psutil.Process]:
    """The processes that save checkpoints of a run, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == run.url:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_for_persisters(run: RunLayout) -> None:
    """Wait until no process saves checkpoints of a run any more."""
    wait_for(lambda: not persisters(run), f"the persisters of {run.name} are gone", limit_s=90)


# ---- what a worker is armed with -----------------------------------------------------------------------------------


def signal_in_step(step: int, *, ranks: tuple[int, ...], number: int) -> Arm:
    """Arm workers to get a signal in the middle of a step (1-based), between forward and backward."""
    return partial(_arm_with_signal, step, ranks, number)


def _arm_with_signal(step: int, ranks: tuple[int, ...], number: int, worker: Any, job: Any) -> None:
    act_in_step(step, partial(os.kill, os.getpid(), number), worker.rank in ranks)


def act_in_step(step: int, act: Callable[[], object], is_armed: bool = True) -> None:
    """Do something in this process in the middle of a step, once."""
    from scaletrain.train import step as module

    now, forward, learning_rate = 0, module.forward, module.learning_rate

    def noting_rate(section: Any, step: int, total_steps: int) -> float:
        nonlocal now
        now = step
        return learning_rate(section, step, total_steps)

    def acting_forward(*arguments: Any) -> Any:
        nonlocal is_armed
        loss = forward(*arguments)
        if is_armed and now == step:
            is_armed = False
            act()
        return loss

    module.learning_rate, module.forward = noting_rate, acting_forward


# ---- the worker's process ------------------------------------------------------------------------------------------


def _main(
    rank: int,
    world_size: int,
    rendezvous: Path,
    line: Connection,
    job: Any,
    arm: Arm | None,
    environment: Mapping[str, str],
) -> None:
    os.environ.update(environment)
    os.environ[_MARK] = job.run.url
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch

    from scaletrain.log import setup_logging
    from scaletrain.train.local import process_group
    from scaletrain.train.loop import train
    from scaletrain.train.worker import Worker, prepare_process

    setup_logging()
    storage.configure(job.config.storage.root, job.config.storage.options)
    worker = Worker(rank, world_size, rank, world_size, torch.device("cpu"))
    prepare_process(worker, deterministic=True)
    torch.set_num_threads(1)
    try:
        if arm is not None:
            arm(worker, job)
        with process_group(worker, rendezvous=rendezvous, timeout_s=job.config.train.timeout_s):
            line.send(train(job, worker, should_stop=lambda: False))
    except BaseException as error:  # noqa: BLE001 -- sent to the test, which looks at it
        line.send(error)

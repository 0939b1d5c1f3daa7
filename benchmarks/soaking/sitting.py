"""One part of a sitting: both arms side by side under the faults that are left of it, and the file that keeps it all.

A part is what one call of the command did. Everything that was seen is written after every fault, so that a call that
was stopped, or killed, loses no finished fault; the accounts are made from these files.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from soaking.account import Account, Hit, make_account
from soaking.arms import ArmName, Prepared
from soaking.observed import Observed, observed_of
from soaking.schedule import Fault, make_schedule

ARMS: tuple[ArmName, ArmName] = ("scaletrain", "stock")
_START_LIMIT_S, _RECOVER_LIMIT_S = 900.0, 300.0
_POLL_S = 2.0
_BENCHMARKS = Path(__file__).parents[1]
_ISOLATED = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Plan:
    """What a sitting is, as its first call said."""

    number: int
    seed: int
    count: int
    mean_s: float
    kinds: tuple[str, ...]

    def faults(self) -> list[Fault]:
        return make_schedule(self.seed, sitting=self.number, count=self.count, mean_s=self.mean_s, kinds=self.kinds)


class Part:
    """One part as it is kept: plain data in one file."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record
        self._lock = threading.Lock()

    @property
    def plan(self) -> Plan:
        return Plan(**{**self.record["plan"], "kinds": tuple(self.record["plan"]["kinds"])})

    @property
    def is_whole(self) -> bool:
        """Whether all that was left of the sitting came, and was waited for; not where it was stopped before."""
        return bool(self.record.get("is_whole"))

    def finished(self) -> set[int]:
        """The numbers of the faults that both arms have had."""
        return set.intersection(*({each["number"] for each in self.record["hits"][arm]} for arm in ARMS))

    def add(self, arm: ArmName, hit: Hit | None, seen: dict[str, Any]) -> None:
        """Keep what an arm has had, and what was seen of it."""
        with self._lock:
            if hit is not None:
                self.record["hits"][arm].append(asdict(hit))
            self.record["seen"][arm] = seen
            self.record["ended"] = time.time()
            self._write()

    def keep(self, **facts: Any) -> None:
        """Keep some facts."""
        with self._lock:
            self.record.update(facts)
            self._write()

    def seen(self, arm: ArmName) -> Observed:
        return observed_of(self.record["seen"][arm])

    def account(self, arm: ArmName) -> Account:
        """The account of an arm, of the faults that both had."""
        finished = self.finished()
        hits = [Hit(**each) for each in self.record["hits"][arm] if each["number"] in finished]
        return make_account(self.seen(arm), hits, began=self.record["began"], ended=self.record["ended"])

    def _write(self) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.record))
        partial.replace(self.path)


def read_parts(state: Path) -> list[Part]:
    """Every part that is kept in a folder, in order."""
    return [Part(path, json.loads(path.read_text())) for path in sorted(state.glob("sitting-*.json"))]


def plan_next(state: Path, plan: Plan) -> tuple[Plan, list[Fault], int]:
    """The sitting that comes next, the faults that are left of it, and the number of its next part.

    That is the last sitting, where faults of it are left; else a new one of `plan`.
    """
    parts = read_parts(state)
    if parts:
        last = parts[-1].plan
        own = [part for part in parts if part.plan.number == last.number]
        done = set[int]().union(*(part.finished() for part in own))
        if left := [fault for fault in last.faults() if fault.number not in done]:
            return last, left, len(own) + 1
        plan = Plan(last.number + 1, plan.seed, plan.count, plan.mean_s, plan.kinds)
    return plan, plan.faults(), 1


def sit(state: Path, plan: Plan, left: Sequence[Fault], *, part: int, data: Prepared, logs: Path | None) -> Part:
    """Run a part to its end, or until Ctrl-C, which waits for the faults under way; a second one does not.

    What the arms leave on their machines' disks, all logs among it, stays in the folder `logs`, where one is given.
    """
    cores = dict(zip(ARMS, (0, 1) if plan.number % 2 else (1, 0), strict=True))
    kept = Part(
        state / f"sitting-{plan.number:03d}-part-{part:02d}.json",
        {"plan": asdict(plan), "cores": cores, "began": 0.0, "ended": 0.0, "verified": {}}
        | {"hits": {arm: [] for arm in ARMS}, "seen": {arm: Observed().record() for arm in ARMS}},
    )
    if logs is not None:
        logs = logs / kept.path.stem
        logs.mkdir(parents=True)
    with (
        nullcontext(str(logs)) if logs is not None else tempfile.TemporaryDirectory(prefix="soak-") as folder,
        _Room("scaletrain", cores["scaletrain"], folder, data) as ours,
        _Room("stock", cores["stock"], folder, data) as peer,
    ):
        _sit(kept, [ours, peer], left)
    return kept


class _Room:
    """One arm's machine room, in a process of its own on a core of its own."""

    def __init__(self, arm: ArmName, core: int, folder: str, data: Prepared) -> None:
        self.arm = arm
        self._folder = Path(folder) / arm
        self._folder.mkdir()
        self._asking = threading.Lock()
        options = json.dumps({"arm": arm, "folder": str(self._folder), "data": asdict(data)})
        command = ["taskset", "-c", str(core), "unshare", *_ISOLATED, sys.executable, "-m", "soaking.site", options]
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        environment["PYTHONPATH"] = f"{_BENCHMARKS}:{_BENCHMARKS.parent / 'tests'}"
        with (self._folder / "site.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the one that started it
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(timeout=60)

    def ask(self, do: str, **details: Any) -> Any:
        """Have something done there; returns the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._asking:
            self._process.stdin.write(json.dumps({"do": do, "with": details}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.arm}: its machine room is gone; {(self._folder / 'site.log').read_text()[-3000:]}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.arm}: {answer['error']}")
        return answer["result"]

    def seen(self) -> Observed:
        return observed_of(self.ask("observed"))


def _sit(kept: Part, rooms: Sequence[_Room], left: Sequence[Fault]) -> None:
    stopping = threading.Event()
    _tell(f"starting both arms; {len(left)} faults are left of sitting {kept.plan.number}")
    _in_parallel(rooms, lambda room: _start(room, stopping), stopping)
    began = time.time()
    kept.keep(began=began, ended=began)
    first_s = left[0].at_s - min(left[0].at_s, kept.plan.mean_s)
    _in_parallel(rooms, lambda room: _endure(kept, room, left, began - first_s, stopping), stopping)
    _tell("ending both arms, and verifying")
    ended, verified = time.time(), dict[str, Any]()

    def finish(room: _Room) -> None:
        verified[room.arm] = room.ask("finish")
        kept.add(room.arm, None, room.ask("observed"))

    _in_parallel(rooms, finish, threading.Event())
    kept.keep(ended=ended, verified=verified, is_whole=not stopping.is_set())


def _start(room: _Room, stopping: threading.Event) -> None:
    room.ask("start")
    deadline = time.monotonic() + _START_LIMIT_S
    while not room.seen().commits:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{room.arm} committed nothing in {_START_LIMIT_S:.0f} s")
        if stopping.wait(_POLL_S):
            return


def _endure(kept: Part, room: _Room, left: Sequence[Fault], began: float, stopping: threading.Event) -> None:
    """Let the faults come to an arm at their times, and wait until it has recovered from the last one."""
    for fault in left:
        if stopping.wait(max(0.0, began + fault.at_s - time.time())):
            return
        made = room.ask("fault", fault=fault.record())
        hit = Hit(fault.number, fault.kind, made["time"], made["hit"])
        seen = room.ask("observed")
        kept.add(room.arm, hit, seen)
        highest = max((line["step"] for line in seen["lines"]), default=0)
        nothing = "" if hit.hit else ", nothing there to hit"
        _tell(f"{fault.number + 1}/{kept.plan.count} {fault.kind}{nothing}: {room.arm} at step {highest}")
    deadline = time.monotonic() + _RECOVER_LIMIT_S
    while time.monotonic() < deadline and not stopping.is_set():
        seen = room.ask("observed")
        kept.add(room.arm, None, seen)
        hits = [Hit(**each) for each in kept.record["hits"][room.arm]]
        costs = make_account(observed_of(seen), hits, began=began, ended=time.time()).costs
        if not costs or costs[-1].pause_s is not None:
            return
        stopping.wait(_POLL_S)


def _in_parallel(rooms: Sequence[_Room], action: Any, stopping: threading.Event) -> None:
    """Do the same for both arms at once; Ctrl-C sets `stopping` and waits for them."""
    failures: list[BaseException] = []

    def run(room: _Room) -> None:
        try:
            action(room)
        except BaseException as error:  # noqa: BLE001 -- raised by the thread that waits
            failures.append(error)
            stopping.set()

    threads = [threading.Thread(target=run, args=(room,), daemon=True) for room in rooms]
    for thread in threads:
        thread.start()
    try:
        _join(threads)
    except KeyboardInterrupt:
        stopping.set()
        _tell("stopping after the faults under way; once more: at once, unverified")
        _join(threads)
    if failures:
        raise failures[0]


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=1)


def _tell(text: str) -> None:
    with suppress(BrokenPipeError):
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

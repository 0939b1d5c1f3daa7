"""From the SIGKILL of one of two workers to the next new step, by phase: `scaletrain train` beside stock Ray Train.

    python benchmarks/recovery.py [--write benchmarks/results/recovery.md] [--model SOURCE]

The peer is peers/stock_ray_train.py: the same model, rows, batches and ZeRO stage on Ray Train and DeepSpeed, written
after Ray's documentation, with Ray's defaults. Each sitting starts one of the two anew, on a Ray of this machine alone,
and kills several workers in it, each some time after the last recovery; sittings take turns, A B B A. Times come from
outside (the kill, the end of the old group's processes) and from what each loop notes itself. Takes some 25
minutes on two cores with the small random model; --model gives a real one.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import measure
from recovering.arms import WORKERS, Arm, Ours, Setting, Stock
from scaletrain.train.extensions import build_extensions

OURS, STOCK = "scaletrain train", "stock Ray Train"
BOUND_S = 2.0
SETTLED_S = 60.0  # from a first new step to the next kill: commits are made, spares are up
_LIMIT_S = 400.0
_POLL_S = 0.02
# Each phase with the time that ends it; it begins where the one before ends.
PHASES = {
    "loss noticed, old group gone": "gone",
    "placement, processes, Ray Train": "entered",
    "imports": "imported",
    "model and engine": "engine",
    "restore": "restored",
    "first batch": "first_batch",
    "first step, done again": "first_step",
    "first new step": "new_step",
}


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--sittings", type=int, default=4, help="of each arm, an even number (default: %(default)s)")
    parser.add_argument("--losses", type=int, default=2, help="in each sitting (default: %(default)s)")
    parser.add_argument("--model", help="a source as in model.source, instead of a small random one")
    parser.add_argument("--only", choices=[OURS, STOCK], help="leave the other arm out")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    machine = measure.machine("ray", "deepspeed", "torch", "transformers")
    os.environ.update(DS_ACCELERATOR="cpu", RAY_USAGE_STATS_ENABLED="0")
    build_extensions()  # the environment that it sets is for both arms
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        setting = Setting.prepare(Path(folder), model=arguments.model)
        arms = {OURS: Ours, STOCK: Stock}
        if arguments.only:
            arms = {arguments.only: arms[arguments.only]}
        found: dict[str, list[Recovery]] = {name: [] for name in arms}
        for number in range(arguments.sittings):
            for name in list(arms) if number % 2 == 0 else list(arms)[::-1]:
                with arms[name](setting, f"sitting-{number}").running() as arm:
                    found[name] += [recover(arm) for _ in range(arguments.losses)]
    measure.publish(f"# Recovery\n\n{machine}\n\n{report(found)}", arguments.write)


@dataclass(frozen=True)
class Recovery:
    """One loss: when each phase ended, in seconds since the kill; `done_again` counts steps, `own_s` is ours alone."""

    ends_s: dict[str, float]
    done_again: int
    own_s: float | None

    def phase_s(self, name: str) -> float:
        """Seconds of one phase."""
        ends = [0.0, *(self.ends_s[end] for end in PHASES.values())]
        place = list(PHASES).index(name)
        return ends[place + 1] - ends[place]


def recover(arm: Arm) -> Recovery:
    """Let a run settle, kill one of its workers, and wait for its next new step."""
    before = arm.last_step()
    _wait(lambda: arm.last_step() > before, "a step", arm)
    time.sleep(SETTLED_S)
    workers = _workers(arm.process.pid)
    assert len(workers) == WORKERS, workers
    workers[-1].kill()
    killed = time.time()
    highest = arm.last_step()
    while any(_lives(worker) for worker in workers):  # what it had told goes with it
        highest = max(highest, arm.last_step())
        time.sleep(_POLL_S)
    gone = time.time()
    _wait(lambda: arm.last_step() > highest, "a new step", arm)
    new_step = time.time()
    phases = _wait(lambda: found if (found := arm.phases()).get("entered", 0) > killed else None, "its phases", arm)
    ends = {**phases, "gone": gone, "new_step": new_step}
    print(f"{type(arm).__name__}: {new_step - killed:.1f} s", file=sys.stderr)
    return Recovery(
        ends_s={name: ends[name] - killed for name in PHASES.values()},
        done_again=highest - arm.resumed_from(),
        own_s=arm.own_s(phases),
    )


def report(found: dict[str, list[Recovery]]) -> str:
    """The tables."""
    rows = []
    for phase in PHASES:
        rows.append([phase, *(_spread([each.phase_s(phase) for each in found[name]]) for name in found)])
    whole = {name: [each.ends_s["new_step"] for each in found[name]] for name in found}
    again = {name: [each.ends_s["first_step"] for each in found[name]] for name in found}
    rows.append(["kill to the first step done again", *(_spread(again[name]) for name in found)])
    rows.append(["kill to the first new step", *(_spread(whole[name]) for name in found)])
    rows.append(["steps done again", *(_spread([each.done_again for each in found[name]]) for name in found)])
    rows.append(["A/A: medians of the two halves", *(_halves(whole[name]) for name in found)])
    table = measure.markdown_table(["s: median (range)", *found], rows)
    notes = [f"{', '.join(f'{name}: {len(values)}' for name, values in found.items())} losses"]
    if OURS in found:
        own = [each.own_s for each in found[OURS] if each.own_s is not None]
        kept = "kept" if statistics.median(own) <= BOUND_S else "MISSED"
        notes.append(
            f"scaletrain's own part (claims, newest commit, restore, first batch): {_spread(own)} s "
            f"(bound: {BOUND_S:g} s: {kept})"
        )
    return f"{table}\n\n{'; '.join(notes)}. Load {os.getloadavg()[0]:.1f} after the last loss."


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _halves(values: Sequence[float]) -> str:
    half = len(values) // 2
    return f"{statistics.median(values[:half]):.2f} / {statistics.median(values[half:]):.2f}" if half else ""


def _workers(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children(recursive=True) if "RayTrainWorker" in p.name()]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(condition: Any, what: str, arm: Arm) -> Any:
    deadline = time.monotonic() + _LIMIT_S
    while not (value := condition()):
        if arm.process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"not within {_LIMIT_S:.0f} s, or it has ended: {what}\n{arm.log.read_text()[-3000:]}")
        time.sleep(_POLL_S)
    return value


if __name__ == "__main__":
    main()

"""How fast runs are simulated, and how near simulated runs come to those that were measured.

    python benchmarks/simulate.py [--write benchmarks/results/simulate.md]

Speed: 1,000 runs of 1,000 GPUs for 30 days, and of 10,000, on one core (bound for the first: 10 s of CPU). The truth,
with --soak STATE: the second half of what benchmarks/soak.py measured and kept there, on clusters of real Ray processes
with real kills and notices, is simulated with the pauses of the first half. Takes a minute.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

import measure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from scaletrain.simulate.engine import play
from scaletrain.simulate.series import Series
from scaletrain.simulate.setting import GPU_LOSSES_PER_HOUR, Outcome, Pool, Setting
from soaking.account import Account, make_account
from soaking.arms import SAVE_EVERY
from soaking.sitting import Part, read_parts

BOUND_S = 10.0
RUNS = 1000
_DAYS = 30
_MACHINE_GPUS = 8
_MONTH_HOURS = 730.0


def main() -> int:
    """Measure, and print what was found as Markdown; returns 1 where the bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each size (default: %(default)s)")
    parser.add_argument("--soak", type=Path, help="the state folder of benchmarks/soak.py, as .soak")
    arguments = parser.parse_args()
    machine = measure.machine("numpy")
    rows, kept = [], True
    for gpus in (1000, 10_000):
        cpu_s, found = simulate(gpus, arguments.runs)
        rows.append(speed_row(gpus, cpu_s, found))
        kept = kept and (gpus != 1000 or cpu_s * RUNS / arguments.runs <= BOUND_S)
    heads = ["GPUs", "CPU s", "ms a run", "attempts a run", "machines lost a run", "days, mean (longest)"]
    speed = measure.markdown_table(heads, rows)
    verdict = f"bound, 1,000 runs of 1,000 GPUs in {BOUND_S:g} s: {'kept' if kept else 'missed'}"
    sized = f"{arguments.runs} runs of {_DAYS} days each; {verdict}."
    told = f"\n\n{truth(arguments.soak)}" if arguments.soak else ""
    measure.publish(f"# Simulating\n\n{machine}\n\n## Speed\n\n{speed}\n\n{sized}{told}", arguments.write)
    return 0 if kept else 1


def simulate(gpus: int, runs: int) -> tuple[float, list[Outcome]]:
    """Runs on spot machines of eight GPUs, a fifth of which is taken in a month; returns their CPU seconds too."""
    step_s = 10.0
    setting = Setting(
        steps=int(_DAYS * 86_400 / step_s),
        micro_batches=gpus,
        micro_batch_s=step_s,
        least=gpus // 2,
        most=gpus,
        every_steps=60,
        stall_s=1.0,
        upload_s=60.0,
        restore_s=60.0,
        notice_s=120.0,
        hardware_losses_per_hour=_MACHINE_GPUS * GPU_LOSSES_PER_HOUR,
    )
    pool = Pool(
        machine_type="of 8 GPUs",
        zone="",
        usd_per_hour=Series.constant(20.0),
        losses_per_hour=Series.constant(0.2 / _MONTH_HOURS),
        capacity=Series.constant(float("inf")),
        on_demand_usd_per_hour=50.0,
        workers_per_machine=_MACHINE_GPUS,
    )
    found: list[Outcome] = []
    timing = measure.timed(lambda: found.extend(play(setting, [pool], seed=0, index=index) for index in range(runs)))
    return timing.cpu_s, found


def speed_row(gpus: int, cpu_s: float, found: Sequence[Outcome]) -> list[str]:
    """One size's line."""
    days = [each.wall_s / 86_400 for each in found]
    return [
        f"{gpus:,}",
        f"{cpu_s:.1f}",
        f"{1000 * cpu_s / len(found):.2f}",
        f"{statistics.fmean(len(each.attempts) for each in found):.0f}",
        f"{statistics.fmean(each.losses + each.saved_in_time for each in found):.0f}",
        f"{statistics.fmean(days):.2f} ({max(days):.2f})",
    ]


# ---- measured runs ---------------------------------------------------------------------------------------------------

_UNSAID = ("worker-killed", "worker-ended", "node-killed", "driver-killed", "cluster-killed", "bit-flipped")


@dataclass(frozen=True)
class Half:
    """Half of a soak: what its faults did to scaletrain; the pause is the mean of all of them, and a step its mean."""

    wall_s: float
    productive_s: float
    steps: int
    done_again: int
    unsaid: int
    faults: int
    pause_s: float

    @property
    def goodput(self) -> float:
        """The share of the wall time that went into steps that count."""
        return self.productive_s / self.wall_s

    @property
    def step_s(self) -> float:
        """What a step took on the mean."""
        return self.productive_s / self.steps


def truth(state: Path) -> str:
    """What the model says of the second half of a soak, with the pauses and the step of the first half put in."""
    halves = [_halves(part) for part in read_parts(state)]
    first, second = (_together([each[place] for each in halves]) for place in (0, 1))
    found = replay(first, second)
    training = [each for run in found for each in run.attempts if each.why == "lost"]
    each_again = [each.resumed_from + each.steps_done - each.committed for each in training]
    rows = [
        compared("goodput", second.goodput, [each.goodput for each in found], percent=True),
        compared("minutes", second.wall_s / 60, [each.wall_s / 60 for each in found]),
        compared("steps done again for a loss", second.done_again / second.unsaid, each_again),
        compared("steps done again in all", second.done_again, [each.lost_steps for each in found]),
    ]
    table = measure.markdown_table(["", "measured", "simulated", "nine of ten simulated", "error of the mean"], rows)
    notes = [
        f"The second half of the soak of soak.md: {second.steps:,} steps, {second.faults} faults, {second.unsaid}",
        "of them losses without notice. Put in: from the first half, the mean pause after a fault",
        f"({first.pause_s:.1f} s); from the second, a step ({second.step_s:.3f} s, {first.step_s:.3f} s before other",
        "work shared the machine), and how many steps and faults there were. A save is made every",
        f"{SAVE_EVERY} steps, and is taken to be committed at once. Simulated faults come at any time, and cost no",
        "step where they hit a start; those of the soak nearly all found the run training.",
    ]
    return f"## Beside a measured run\n\n{table}\n\n{' '.join(notes)}"


def replay(first: Half, second: Half) -> list[Outcome]:
    """Simulated runs as long as the second half, with its steps and rate of faults, and the pauses of the first."""
    setting = Setting(
        steps=second.steps,
        micro_batches=1,
        micro_batch_s=second.step_s,
        least=1,
        most=1,
        every_steps=SAVE_EVERY,
        start_s=first.pause_s,
        loss_seen_s=0.0,
        launch_s=0.0,
        by_hand_s=0.0,
        notice_s=30.0,
        hardware_losses_per_hour=3600 * second.unsaid / second.wall_s,
    )
    said = Series.constant(3600 * (second.faults - second.unsaid) / second.wall_s)
    pool = Pool("node", "", Series.constant(0.0), said, Series.constant(float("inf")))
    return [play(setting, [pool], seed=0, index=index) for index in range(400)]


def compared(name: str, measured: float, simulated: Sequence[float], *, percent: bool = False) -> list[str]:
    """One line of the table."""
    mean, low, high = statistics.fmean(simulated), *np.percentile(simulated, (5, 95))
    shown = [f"{each:.1%}" if percent else f"{each:,.1f}" for each in (measured, mean, low, high)]
    return [name, shown[0], shown[1], f"{shown[2]} to {shown[3]}", f"{mean / measured - 1:+.0%}"]


def _halves(part: Part) -> tuple[Half, Half]:
    """The faults of a part's first half, and those of its second."""
    whole = part.account("scaletrain")
    hits = [each.hit for each in whole.costs]
    middle, began, ended = hits[len(hits) // 2].time, part.record["began"], part.record["ended"]
    seen = part.seen("scaletrain")
    return (
        _half(make_account(seen, hits[: len(hits) // 2], began=began, ended=middle)),
        _half(make_account(seen, hits[len(hits) // 2 :], began=middle, ended=ended)),
    )


def _half(account: Account) -> Half:
    pauses = [each.pause_s for each in account.costs if each.pause_s is not None]
    return Half(
        wall_s=account.wall_s,
        productive_s=account.productive_s,
        steps=account.steps,
        done_again=sum(each.done_again for each in account.costs),
        unsaid=sum(each.hit.kind in _UNSAID for each in account.costs),
        faults=len(account.costs),
        pause_s=statistics.fmean(pauses),
    )


def _together(halves: Sequence[Half]) -> Half:
    """Several parts as one; the pause is the mean of all faults."""
    sums = {each.name: sum(getattr(half, each.name) for half in halves) for each in fields(Half)}
    return Half(**{**sums, "pause_s": sum(half.pause_s * half.faults for half in halves) / sums["faults"]})


if __name__ == "__main__":
    sys.exit(main())

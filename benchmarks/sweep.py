"""What a sweep costs beside `scaletrain train` by hand: the time of a trial, and workers that stand idle between two.

    python benchmarks/sweep.py [--write benchmarks/results/sweep.md] [--rounds 4] [--trials 3]

Both arms train the same configurations, one after the other, on Ray workers of this machine, with the rows prepared:

    by hand  a command `scaletrain train` for each
    sweep    one command `scaletrain sweep` over all, one trial at once

A gap is the time from the end of a trial's last step to the beginning of the next one's first, as their metrics tell.
In it the one run commits its last step and ends, and the other's workers and engine start, which they do by hand too.
Idle is what of a gap is beyond that: beyond the time from a command by hand to its first step. The targets: a trial
takes at most 1 s and 2% more than by hand, and less than 5% of the sweep is idle. Takes some twenty minutes.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import measure
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records

HAND, SWEEP = "by hand", "sweep"
MOST_S, MOST_SHARE, MOST_IDLE = 1.0, 0.02, 0.05
CONFIG = """
name: sweep
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 2048, hidden_size: 128, num_layers: 4, num_heads: 4}}}}
data:
  corpora: [{{format: chatterbot, source: "package:chatterbot_corpus/data/english/*.yml"}}]
  seq_len: 256
  validation: 0
train: {{steps: {steps}, global_batch_size: 8, micro_batch_size: 4, device: cpu}}
scaling: {{workers: 1}}
checkpoint: {{every_steps: 1000000}}
"""


@dataclass(frozen=True)
class Ran:
    """One execution of an arm, in seconds: all of it, from a command to its first step, and the gaps between trials."""

    wall_s: float
    first_steps_s: tuple[float, ...]
    gaps_s: tuple[float, ...]


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=4, help="how often each arm runs (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=3, help="trials of a sweep, 2 at least (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=120, help="steps of a trial, some 20 s (default: %(default)s)")
    options = parser.parse_args()
    if options.trials < 2 or options.rounds < 1 or options.steps < 1:
        parser.error("--trials is 2 at least, since gaps lie between two; --rounds and --steps are 1 at least")
    machine = measure.machine("ray", "deepspeed", "torch")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        report = compare(Path(folder), rounds=options.rounds, trials=options.trials, steps=options.steps)
    measure.publish(f"# A sweep beside training by hand\n\n{machine}\n\n{report}", options.write)


def compare(folder: Path, *, rounds: int, trials: int, steps: int) -> str:
    """Run the arms in turns; returns the report."""
    root, config = str(folder / "bucket"), folder / "sweep.yaml"
    config.write_text(CONFIG.format(root=root, steps=steps))
    rates = [1e-3 / 2**number for number in range(trials)]
    measure.scaletrain("train", str(config), "name=warm-up", "train.steps=2")
    ran: dict[str, list[Ran]] = {HAND: [], SWEEP: [], HAND + measure.AGAIN: []}
    for number in range(rounds):
        for place, arm in enumerate(list(ran) if number % 2 == 0 else list(ran)[::-1]):
            run = run_sweep if arm == SWEEP else run_by_hand
            ran[arm].append(run(str(config), root, f"round-{number}-{place}", rates))
    return _report(ran, trials=trials, steps=steps)


def run_by_hand(config: str, root: str, name: str, rates: list[float]) -> Ran:
    """Train with each learning rate, a command for each."""
    runs = [RunLayout(root, f"{name}.{number:04d}") for number in range(len(rates))]
    began, commands = time.time(), []
    for run, rate in zip(runs, rates, strict=True):
        commands.append(time.time())
        measure.scaletrain("train", config, f"name={run.name}", f"train.learning_rate={rate!r}")
    return _ran(began, time.time(), commands, runs)


def run_sweep(config: str, root: str, name: str, rates: list[float]) -> Ran:
    """Train with each learning rate, as the trials of one sweep."""
    section = f"sweep={{parameters: {{train.learning_rate: {{grid: {rates!r}}}}}, metric: loss, at_once: 1}}"
    began = time.time()
    measure.scaletrain("sweep", config, f"name={name}", section)
    ended = time.time()
    return _ran(began, ended, [began], [RunLayout(root, f"{name}.{number:04d}") for number in range(len(rates))])


def _ran(began: float, ended: float, commands: list[float], runs: list[RunLayout]) -> Ran:
    trained = sorted(_trained(run) for run in runs)
    first_steps = tuple(first - command for command, (first, _) in zip(commands, trained, strict=False))
    return Ran(ended - began, first_steps, tuple(first - last for (_, last), (first, _) in pairwise(trained)))


def _trained(run: RunLayout) -> tuple[float, float]:
    """When a run's first step began, and when its last one ended, in seconds since 1970."""
    records = read_records(run.metrics)
    first, last = (datetime.fromisoformat(str(records[place]["time"])).timestamp() for place in (0, -1))
    return first - float(str(records[0]["step_s"])), last


def _report(ran: dict[str, list[Ran]], *, trials: int, steps: int) -> str:
    hand, sweep, again = (ran[name] for name in (HAND, SWEEP, HAND + measure.AGAIN))
    walls = {name: [each.wall_s / trials for each in found] for name, found in ran.items()}
    over = measure.interval([one - other for one, other in zip(walls[SWEEP], walls[HAND], strict=True)])
    allowed = MOST_S + MOST_SHARE * measure.interval(walls[HAND]).median
    by_hand_s = measure.interval([each for one in (*hand, *again) for each in one.first_steps_s]).median
    idle = [sum(max(0.0, gap - by_hand_s) for gap in one.gaps_s) / one.wall_s for one in sweep]
    rows = []
    for name, found in ran.items():
        gaps = measure.interval([gap for one in found for gap in one.gaps_s])
        ratio = format(measure.ratio(walls[name], walls[HAND]), ".3f") if name != HAND else ""
        rows.append([name, f"{measure.interval(walls[name]):.2f}", ratio, f"{gaps:.2f}"])
    idle_share = measure.interval([100 * each for each in idle])
    gap_share = measure.interval([100 * sum(one.gaps_s) / one.wall_s for one in sweep])
    verdict = [
        f"- a trial of the sweep against one by hand: {over:+.2f} s (at most {allowed:.2f} s, which is {MOST_S:g} s "
        f"and {MOST_SHARE:.0%}): {'kept' if over.median <= allowed else 'missed'}",
        f"- gaps between trials are {gap_share:.1f}% of the sweep; idle, beyond the {by_hand_s:.2f} s from a command "
        f"by hand to its first step: {idle_share:.1f}% of the sweep (below {MOST_IDLE:.0%}): "
        f"{'kept' if idle_share.median < 100 * MOST_IDLE else 'missed'}",
    ]
    return "\n".join(
        [
            measure.markdown_table(["", "s a trial", f"against {HAND}", "gap between two, s"], rows),
            "",
            f"{len(hand)} rounds of {trials} trials of {steps} steps, medians with 95% intervals; the last row is the "
            f"A/A control. Load {os.getloadavg()[0]:.1f} after the last arm.",
            "",
            *verdict,
        ]
    )


if __name__ == "__main__":
    main()

"""The start of a cluster, the loss of a machine, and what a worker's set-up installs, on an emulated EC2.

    python benchmarks/cluster.py [--write benchmarks/results/cluster.md]

The shipped cluster/aws.yaml stands beside two peers: Ray's minimal example with its default settings (for the start),
and the shipped file with Ray's default failure detection (for the loss). Ray, SSH, S3 and the set-up are real and
unmodified; machines are namespaces that share this computer's cores and boot in a second, on a prepared image. So
times compare, but do not carry over: on EC2 add a minute or more for each machine's boot. Takes half an hour on two
cores; needs root and what `scaletrain cluster test` needs, and is skipped elsewhere.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import measure
from emulated.files import file_with_rays_detection, shipped_file
from emulated.losses import Death, HeldCluster
from emulated.start import PHASES, Installations, Start, start_shipped, start_stock
from scaletrain.emulator.requirements import missing_requirements

OURS, STOCK, RAYS_DETECTION = "cluster/aws.yaml", "Ray's example", "with Ray's detection"
BOUND_S = 5.0
DEATHS: tuple[Death, Death] = ("crash", "preempt")
START_NOTE = (
    "Ray's example makes its role, key and security group at the first `ray up` in an account, and waits for them; for "
    "the shipped file `scaletrain cluster init` has made them before: hence the last line.\n\n"
    "What had to differ: the head of Ray's example has no CPUs (`resources: {CPU: 0}`), so that its training worker is "
    "on a machine of its own too; its script is sent by `ray submit` and trains on random tokens, as its workers may "
    "not read the bucket; scaletrain's is sent by `scaletrain submit` and reads prepared shards from the bucket. Ray's "
    "example keeps one worker at all times (`min_workers: 1`), which comes while the script is being sent; the shipped "
    "file starts its workers when a job asks for them, and an idle cluster costs no more than its head."
)


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--pairs", type=int, default=2, help="how many starts of each file (default: %(default)s)")
    parser.add_argument(
        "--losses", type=int, default=6, help="losses of each kind; half as many for the peer (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if problems := missing_requirements():
        print(f"skipped: no cloud can be emulated here: {'; '.join(problems)}", file=sys.stderr)
        return
    machine = measure.machine("ray", "deepspeed", "torch")
    losses = compare_losses(arguments.losses)
    starts = compare_starts(arguments.pairs)
    measure.publish(f"# A cluster's start and its losses\n\n{machine}\n\n{losses}\n\n{starts}", arguments.write)


def compare_losses(count: int) -> str:
    """Let machines of both clusters die at the same time, each loss after the last one's replacement has come."""
    with HeldCluster(shipped_file) as ours, HeldCluster(file_with_rays_detection) as peer:
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(_lose, ours, count), pool.submit(_lose, peer, max(1, count // 2))]
            found = dict(zip((OURS, RAYS_DETECTION), (each.result() for each in running), strict=True))
        spurious = {OURS: ours.replaced_without_need(), RAYS_DETECTION: peer.replaced_without_need()}
    rows = []
    for death in DEATHS:
        for name, seconds in found.items():
            values = seconds[death]
            again = f"{np.median(values[::2]):.1f} / {np.median(values[1::2]):.1f}" if len(values) > 1 else ""
            bound = "" if name != OURS else "kept" if max(values) <= BOUND_S else "MISSED"
            spread = f"{min(values):.1f} to {max(values):.1f}"
            rows.append([f"{death}, {name}", str(len(values)), f"{np.median(values):.1f}", spread, again, bound])
    header = ["from a machine's death to RunInstances", "losses", "median s", "range", "A/A: 1st, 3rd .. / 2nd, 4th .."]
    table = measure.markdown_table([*header, f"at most {BOUND_S:.0f} s"], rows)
    return (
        f"## A lost machine\n\n{table}\n\ncrash: the machine is silent at once, and EC2 goes on saying that it runs. "
        "preempt: EC2 takes a spot machine back, without notice, and it shuts down in order. A placement group wants "
        f"the machine; nothing trains. Both clusters side by side; load {os.getloadavg()[0]:.1f} after the last loss. "
        f"Machines replaced that had not died: {', '.join(f'{name} {number}' for name, number in spurious.items())}."
    )


def compare_starts(pairs: int) -> str:
    """Start both clusters in turns, A B B A."""
    found: dict[str, list[Start]] = {OURS: [], STOCK: []}
    arms = {OURS: start_shipped, STOCK: start_stock}
    for number in range(pairs):
        for name in list(arms) if number % 2 == 0 else list(arms)[::-1]:
            found[name].append(arms[name]())
    rows = []
    before = dict.fromkeys(found, 0.0)
    for phase in PHASES:
        row = [phase]
        for name, starts in found.items():
            ended = [each.ended_s[phase] for each in starts]
            median = float(np.median(ended))
            row += [f"{median:.1f} ({min(ended):.0f} to {max(ended):.0f})", f"{max(0.0, median - before[name]):.1f}"]
            before[name] = max(before[name], median)
        rows.append(row)
    launched, step = (
        {name: np.array([each.ended_s[phase] for each in starts]) for name, starts in found.items()}
        for phase in (PHASES[0], PHASES[-1])
    )
    counted = [format(float(np.median(step[name] - launched[name])), ".1f") for name in found]
    rows.append(["first step, from the head's launch", counted[0], "", counted[1], ""])
    header = ["seconds from `ray up` being typed", OURS, "phase", STOCK, "phase"]
    return "\n\n".join(
        [
            "## From nothing to the first training step",
            measure.markdown_table(header, rows),
            f"n = {pairs} of each, in turns; medians and range, load {os.getloadavg()[0]:.1f} after the last. The "
            "seconds of a phase are those since everything above it had ended; 0.0 where it ended meanwhile.",
            START_NOTE,
            "## What set-up installs on a prepared image",
            _installations(found),
        ]
    )


def _installations(found: dict[str, list[Start]]) -> str:
    rows = []
    for name, starts in found.items():
        for kind in ("head", "worker"):
            seen = [each for start in starts for each in start.installations if each.kind == kind]
            commands = sum(len(each.commands) for each in seen)
            hosts = [host for each in seen for host in each.fetches]
            asked = f"{len(hosts)} ({', '.join(sorted(set(hosts)))})" if hosts else "0"
            rows.append([f"{kind}, {name}", str(len(seen)), str(commands), asked, _verdict(name, kind, seen)])
    header = ["machines", "count", "processes of pip, apt, dpkg, conda, uv", "requests to the internet", "none allowed"]
    return (
        f"{measure.markdown_table(header, rows)}\n\nProcesses from boot until Ray starts; requests in the machine's "
        "whole life. That Ray's example runs `pip install boto3` on its head shows that both are counted."
    )


def _verdict(name: str, kind: str, seen: Sequence[Installations]) -> str:
    if (name, kind) != (OURS, "worker"):
        return ""
    return "kept" if seen and not any(each.commands or each.fetches for each in seen) else "MISSED"


def _lose(cluster: HeldCluster, count: int) -> dict[Death, list[float]]:
    """Lose a machine in either way, in turns."""
    seconds: dict[Death, list[float]] = {death: [] for death in DEATHS}
    for number in range(count):
        for death in DEATHS if number % 2 == 0 else DEATHS[::-1]:
            seconds[death].append(cluster.lose(death))
    return seconds


if __name__ == "__main__":
    main()

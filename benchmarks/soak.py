"""An hour of faults: machines are killed, frozen and taken, stores fail, bits flip; beside it, stock Ray Train.

    python benchmarks/soak.py [--faults 40] [--seed 0] [--state .soak] [--write benchmarks/results/soak.md]

Both arms train the same tiny model on the same rows with DeepSpeed ZeRO-2, save every 20 steps to an S3 server of their
own through a proxy, and get the same faults at the same times, drawn from the seed: one a minute on the mean, as a
Poisson process. An arm is a cluster of real raylets in namespaces (a head and two nodes of one worker each), pinned to
one core together with its S3 server; every other sitting has the cores swapped. What became of a fault is read from
what the arms leave in their buckets and logs. The verdict is on scaletrain alone: no committed step lost, no sample
lost or repeated, every resume verified byte for byte, no fault after which nothing goes on; exit code 1 where that is
not so.

One sitting of 40 faults takes some 45 minutes; what is found is kept in the state folder. A call that was stopped (with
Ctrl-C it ends the fault under way, and proves the runs) is gone on with by the next one; after a finished sitting the
next call adds another. The table is over all of them. Needs root and iproute2, and is skipped elsewhere.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import measure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from soaking.account import Account, FaultCost
from soaking.arms import CONFIG, ROOT, ArmName, Prepared
from soaking.schedule import KINDS
from soaking.sitting import ARMS, Part, Plan, plan_next, read_parts, sit

NAMES: dict[ArmName, str] = {"scaletrain": "scaletrain", "stock": "stock Ray Train"}
NOTES = """\
Faults come at the same times to both arms, whether or not they have recovered from the last one; a fault that finds
nothing to hit (no worker is there) does not count in that arm's n. "pause" is the longest time without a new step, one
with a higher number than any before, that began between the fault and the next one; where all still stood when the
next one came, it counts for both. "done again" are steps that were trained, and did not count. "goodput" is the share
of the wall time that went into steps that count, without saving, by the same definition for both. "restarts" are
commands (or nodes, by Ray's mistake) that ended by themselves and were started again 5 s later.

What differs: scaletrain trains on one or two workers, as there are nodes, and takes a new node in after a save; stock
Ray Train always on two, as DeepSpeed's own checkpoint loads on no other number. Both are on nodes of two logical CPUs:
scaletrain's workers take two each, stock's one, and its reading tasks the rest. Nothing in stock Ray reads a cloud's
notice: Ray is told to drain the node in its place. Stock's checkpoints have no checksums, so that none of its resumes
is verified, and Ray Data begins a new pass over the data at each: "samples repeated" counts its rank 0's alone, and
what the pass before had not come to is left out. Both arms have the failure detection of cluster/aws.yaml, a little
looser. Each arm is pinned to one core with its bucket; the cores are swapped in every other sitting."""


def main() -> int:
    """Run the next part of the schedule, print the table, and return the exit code."""
    arguments = _parse_arguments()
    if problem := missing():
        print(f"skipped: no cluster can be made here: {problem}", file=sys.stderr)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the one who started this ignores Ctrl-C
        signal.signal(number, signal.default_int_handler)
    machine = measure.machine("ray", "deepspeed", "torch")
    arguments.state.mkdir(parents=True, exist_ok=True)
    wanted = Plan(1, arguments.seed, arguments.faults, arguments.mean_s, tuple(arguments.classes))
    plan, left, number = plan_next(arguments.state, wanted)
    if not arguments.report:
        with tempfile.TemporaryDirectory(prefix="soak-data-") as folder:
            sit(arguments.state, plan, left, part=number, data=prepare(Path(folder)), logs=arguments.logs)
    parts = read_parts(arguments.state)
    verdict, is_kept = judge(parts)
    measure.publish(f"# Soak\n\n{machine}\n\n{report(parts)}\n\n{NOTES}\n\n{verdict}", arguments.write)
    return 0 if is_kept else 1


def missing() -> str:
    """What this machine lacks; empty where nothing is missing."""
    if os.geteuid() != 0:
        return "namespaces need root"
    lacking = [name for name in ("ip", "unshare", "nsenter", "taskset") if shutil.which(name) is None]
    return f"needs {', '.join(lacking)} (apt-get install iproute2 util-linux)" if lacking else ""


def prepare(folder: Path) -> Prepared:
    """Make the dataset and the model, once for both arms, and compile what DeepSpeed needs."""
    from scaletrain import storage
    from scaletrain.config_file import parse_config
    from scaletrain.data.prepare import prepare
    from scaletrain.train.extensions import build_extensions

    build_extensions()
    config = parse_config(CONFIG.replace(ROOT, str(folder)), source="soak.yaml")
    prepared = prepare(config, use_ray=False)
    return Prepared(
        root=str(folder),
        dataset=str(storage.local_path(prepared.dataset_url)),
        model=str(storage.local_path(prepared.model_url)),
        extensions=os.environ["TORCH_EXTENSIONS_DIR"],  # which building has set
    )


def report(parts: Sequence[Part]) -> str:
    """Both tables, over all parts."""
    accounts = {arm: [part.account(arm) for part in parts] for arm in ARMS}
    costs = {arm: [cost for account in accounts[arm] for cost in account.costs] for arm in ARMS}
    present = [kind for kind in KINDS if any(cost.hit.kind == kind for cost in costs["scaletrain"])]
    rows = [_kind_row(kind, [[c for c in costs[arm] if c.hit.kind == kind] for arm in ARMS]) for kind in present]
    rows.append(_kind_row("all", [costs[arm] for arm in ARMS]))
    header = [
        "fault",
        "n",
        *(f"{NAMES[arm]} {what}" for arm in ARMS for what in ("pause, median s", "max", "done again")),
    ]
    totals = _totals(parts, accounts)
    sittings = len({part.plan.number for part in parts})
    lines = [f"- {kind}: {what}" for kind, what in KINDS.items() if kind in present]
    return "\n\n".join(
        [
            f"{sittings} sittings in {len(parts)} parts, seed {parts[-1].plan.seed}, "
            f"{parts[-1].plan.mean_s:.0f} s between faults on the mean.",
            measure.markdown_table(header, rows),
            measure.markdown_table(["in all", *(NAMES[arm] for arm in ARMS)], totals),
            "\n".join(lines),
        ]
    )


def judge(parts: Sequence[Part]) -> tuple[str, bool]:
    """The verdict on scaletrain, and whether it kept what it promises."""
    accounts = [part.account("scaletrain") for part in parts]
    missed = [] if all(each.steps for each in accounts) else ["a part in which nothing was trained"]
    if lost := sum(each.lost for each in accounts):
        missed.append(f"{lost} committed steps lost")
    if stuck := sum(
        cost.pause_s is None for part in parts if part.is_whole for cost in part.account("scaletrain").costs
    ):
        missed.append(f"no new step was made after {stuck} faults")
    if unproved := sum(not _is_proved(part) for part in parts):
        missed.append(f"{unproved} parts were cut off before they could be verified")
    problems = [problem for part in parts for problem in _problems(part)]
    missed += problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
    if bad := sum(each.resumes - each.whole_resumes for each in accounts):
        missed.append(f"{bad} resumes did not verify")
    if missed:
        return f"MISSED: {'; '.join(missed)}", False
    resumes = sum(each.resumes for each in accounts)
    return f"kept: 0 committed steps lost, 0 samples lost or repeated, all {resumes} resumes verified", True


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=40, help="faults of a new sitting (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the schedule (default: %(default)s)")
    parser.add_argument("--mean-s", type=float, default=60, help="between two faults (default: %(default)s)")
    parser.add_argument("--classes", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="CLASS")
    parser.add_argument("--state", type=Path, default=Path(".soak"), help="what is kept (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="keep all logs of both arms in this folder")
    parser.add_argument("--report", action="store_true", help="only print the table of what is kept")
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    return parser.parse_args()


def _kind_row(kind: str, costs: Sequence[Sequence[FaultCost]]) -> list[str]:
    hit = [[cost for cost in each if cost.hit.hit] for each in costs]
    row = [kind, " / ".join(str(len(each)) for each in hit)]
    for each in hit:
        pauses = [cost.pause_s for cost in each if cost.pause_s is not None]
        never = len(each) - len(pauses)
        row += [
            f"{np.median(pauses):.1f}" if pauses else "-",
            (f"{max(pauses):.1f}" if pauses else "-") + (f", {never} without end" if never else ""),
            str(sum(cost.done_again for cost in each)),
        ]
    return row


def _totals(parts: Sequence[Part], accounts: dict[ArmName, list[Account]]) -> list[list[str]]:
    def row(name: str, *cells: str) -> list[str]:
        return [name, *cells]

    def each(field: str) -> list[str]:
        return [str(sum(getattr(one, field) for one in accounts[arm])) for arm in ARMS]

    goodput = []
    for arm in ARMS:
        wall_s = sum(one.wall_s for one in accounts[arm])
        goodput.append(f"{sum(one.productive_s for one in accounts[arm]) / wall_s:.1%}" if wall_s else "-")
    proved, problems = sum(map(_is_proved, parts)), sum(len(_problems(part)) for part in parts)
    ledger = f"{problems} problems in the ledgers of {proved} of {len(parts)} parts"
    verified = []
    for arm in ARMS:
        whole, resumes = (sum(getattr(one, name) for one in accounts[arm]) for name in ("whole_resumes", "resumes"))
        verified.append(f"{whole} of {resumes}")
    return [
        row("goodput", *goodput),
        row("steps that count", *each("steps")),
        row("steps done again", *each("done_again")),
        row("committed steps lost", *each("lost")),
        row("samples repeated", ledger, each("repeated_samples")[1]),
        row("resumes verified", *verified),
        row("resumes from a damaged checkpoint", *each("damaged_resumes")),
        row("restarts", *each("restarts")),
    ]


def _is_proved(part: Part) -> bool:
    return "verdict" in part.record["verified"].get("scaletrain", {})


def _problems(part: Part) -> list[str]:
    """What `scaletrain verify` found, but for checkpoints that were damaged on purpose and are still there."""
    flipped = tuple(f"checkpoint of step {flip.step}:" for flip in part.seen("scaletrain").flips)
    found = part.record["verified"].get("scaletrain", {}).get("verdict", {}).get("problems", ())
    return [problem for problem in found if not problem.startswith(flipped)]


if __name__ == "__main__":
    sys.exit(main())

"""What the arms of the step benchmark did, kept as JSON, and as Markdown: tables, equal losses, targets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

import measure
from stepping.flops import FORMULA

OURS, BARE, PADDED, FREE, TRL = "scaletrain", "bare DeepSpeed", "Trainer, padded", "Trainer, padding-free", "TRL"
ARMS = (OURS, BARE, PADDED, FREE, TRL)
NOTES = "\n\n## Notes\n"
# How far apart first losses and the norms of their gradients may be: the same documents and weights, summed in another
# order, on a GPU in bf16. TRL's batches are a fixed number of documents, so its first step has not quite the same ones.
_TOLERANCE = {"cpu": {"loss": 1e-4, "gradient norm": 1e-3}, "cuda": {"loss": 2e-3, "gradient norm": 5e-2}}
_OTHER_DOCUMENTS_TOLERANCE = {"loss": 2e-2, "gradient norm": 0.2}
_FIRST = ("first loss", "first gradient norm")
_UNMEASURED = "unmeasured"


@dataclass
class Arm:
    """What one arm did in its rounds; `problem` where it could not run, `micro_rows` what fits at once.

    `grad_norm` is of the first step's gradients, before clipping; None where it was not noted.
    """

    micro_rows: int
    tokens_per_s: list[float] = field(default_factory=list)
    flops_per_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    first_loss: float = 0.0
    last_loss: float = 0.0
    grad_norm: float | None = None
    problem: str = ""

    @property
    def ran(self) -> bool:
        return bool(self.tokens_per_s) and not self.problem

    @property
    def why_not(self) -> str:
        """What stands in the place of figures that are not there."""
        return f"did not run: {self.problem[:90]}" if self.problem else "not measured"


@dataclass(frozen=True)
class Part:
    """One case: what was trained, on what machine, on which documents, and what each arm did.

    `peak_flops` is what the device can do a second, where that is known.
    """

    title: str
    machine: str
    device: str
    documents: str
    parameters: float
    arms: dict[str, Arm]
    peak_flops: float | None


def keep(parts: Sequence[Part], path: Path) -> list[Part]:
    """Add parts to those that a JSON file has, in the place of older ones of the same title; returns all of them."""
    every = {part.title: part for part in (*load(path), *parts)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps([asdict(part) for part in every.values()], option=orjson.OPT_INDENT_2) + b"\n")
    return list(every.values())


def load(path: Path) -> list[Part]:
    """The parts that a JSON file has; none where there is no file."""
    if not path.exists():
        return []
    found = orjson.loads(path.read_bytes())
    return [Part(**{**part, "arms": {name: Arm(**arm) for name, arm in part["arms"].items()}}) for part in found]


def markdown(parts: Sequence[Part], *, picture: str = "", notes: str = "") -> str:
    """The whole report; `picture` is a file beside it, `notes` what somebody wrote below the heading of that name."""
    machines = list(dict.fromkeys(part.machine for part in parts))
    lines = ["# A training step"]
    if len(machines) == 1:
        lines.append(machines[0])
    if picture:
        lines.append(f"![Tokens a second and peak memory of each arm, by size of model]({picture})")
    for part in parts:
        lines.append(section(part, machine=len(machines) > 1))
    lines += [_targets(parts), FORMULA]
    return "\n\n".join(lines) + (NOTES + notes if notes else "")


def written_notes(path: Path) -> str:
    """What stands below the heading of notes in an earlier report."""
    return path.read_text().partition(NOTES)[2] if path.exists() else ""


def section(part: Part, *, machine: bool = True) -> str:
    """A case: its table, its documents, and whether the arms computed the same thing."""
    header = ["arm", "tokens/s", "scaletrain is faster by", "MFU", "peak GB", *_FIRST, "last loss", "micro rows"]
    rows = [_row(name, arm, part) for name, arm in part.arms.items()]
    columns = [column for column in zip(header, *rows, strict=True) if any(column[1:])]  # MFU is known of GPUs alone
    header, *rows = (list(row) for row in zip(*columns, strict=True))
    lines = [f"## {part.title}", measure.markdown_table(header, rows), part.documents]
    if machine:
        lines.insert(1, part.machine)
    problems = unequal(part)
    if problems:
        lines.append("**" + "; ".join(problems) + "**")
    else:
        nearly = ", but for TRL's, whose steps have not quite the same documents" if TRL in part.arms else ""
        noted = all(arm.grad_norm is not None for arm in part.arms.values() if arm.ran)
        alike = "First losses and the norms of their gradients are" if noted else "First losses are"
        lines.append(f"{alike} equal, as far as another order of adding up lets them be{nearly}.")
    return "\n\n".join(lines)


def unequal(part: Part) -> list[str]:
    """Which arms did not compute what the first one that ran did: by their first step, before any update counts."""
    ran = {name: arm for name, arm in part.arms.items() if arm.ran}
    if not ran:
        return []
    reference, first = next(iter(ran.items()))
    found = []
    for name, arm in ran.items():
        tolerance = _OTHER_DOCUMENTS_TOLERANCE if TRL in (name, reference) else _TOLERANCE[part.device]
        values = {"loss": (arm.first_loss, first.first_loss)}
        if arm.grad_norm is not None and first.grad_norm is not None:
            values["gradient norm"] = (arm.grad_norm, first.grad_norm)
        found += [
            f"{name} did not compute what {reference} did: its first {what} is {its:.4f}, not {expected:.4f}"
            for what, (its, expected) in values.items()
            if not abs(its - expected) <= tolerance[what] * abs(expected)
        ]
    return found


def _row(name: str, arm: Arm, part: Part) -> list[str]:
    if not arm.ran:
        return [name, arm.why_not, *[""] * 7]
    against = ""
    if name != OURS and part.arms.get(OURS) is not None and part.arms[OURS].ran:
        against = format(_faster(part.arms[OURS], arm), ".2f")
    mfu = f"{measure.interval(arm.flops_per_s).median / part.peak_flops:.3f}" if part.peak_flops else ""
    return [
        name,
        format(measure.interval(arm.tokens_per_s), ",.0f"),
        against,
        mfu,
        f"{arm.peak_bytes / 1e9:.1f}" if arm.peak_bytes else "",
        f"{arm.first_loss:.4f}",
        "" if arm.grad_norm is None else f"{arm.grad_norm:.4f}",
        f"{arm.last_loss:.4f}",
        str(arm.micro_rows),
    ]


def _faster(ours: Arm, arm: Arm) -> measure.Interval:
    """How many times another arm's tokens ours makes, over the rounds that both have run."""
    rounds = min(len(ours.tokens_per_s), len(arm.tokens_per_s))
    return measure.ratio(ours.tokens_per_s[:rounds], arm.tokens_per_s[:rounds])


def _targets(parts: Sequence[Part]) -> str:
    header = ["target, on one GPU", *(part.title for part in parts)]
    verdicts = [_verdicts(part) for part in parts]
    rows = [[target, *(each.get(target, _UNMEASURED) for each in verdicts)] for target in _TARGETS]
    return f"## Targets\n\n{measure.markdown_table(header, rows)}"


_TARGETS = (
    "3.5 times the padded Trainer",
    "1.0 times the best peer",
    "0.99 of bare DeepSpeed with the same kernels",
    "peak memory 0.7 of the padding-free Trainer's",
    "MFU 0.55, from 1B on",
)


def _verdicts(part: Part) -> Mapping[str, str]:
    """What a case says of each target; nothing of those that it did not measure, and nothing at all on a CPU."""
    ours = part.arms.get(OURS)
    if part.device != "cuda" or ours is None or not ours.ran:
        return {}
    found = {}
    peers = {name: arm for name, arm in part.arms.items() if name != OURS and arm.ran}
    faster = {name: _faster(ours, arm).median for name, arm in peers.items()}
    if PADDED in faster:
        found[_TARGETS[0]] = _verdict(faster[PADDED], 3.5)
    others = {name: value for name, value in faster.items() if name != BARE}
    if others:
        closest = min(others, key=lambda name: others[name])
        found[_TARGETS[1]] = f"{_verdict(others[closest], 1.0)} ({closest})"
    if BARE in faster:
        found[_TARGETS[2]] = _verdict(faster[BARE], 0.99)
    if FREE in peers and ours.peak_bytes:
        share = ours.peak_bytes / peers[FREE].peak_bytes
        found[_TARGETS[3]] = f"{share:.3f}: {'kept' if share <= 0.7 else 'missed'}"
    if part.peak_flops and part.parameters >= 1e9:
        found[_TARGETS[4]] = _verdict(measure.interval(ours.flops_per_s).median / part.peak_flops, 0.55)
    elif part.parameters < 1e9:
        found[_TARGETS[4]] = "not for this size"
    return found


def _verdict(value: float, target: float) -> str:
    return f"{value:.3f}: {'kept' if value >= target else 'missed'}"

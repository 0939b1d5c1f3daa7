"""The two arms: what is run, and how what it left behind is read. Both look the same to the rest of the soak."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from commands import SCALETRAIN
from scaletrain import checkpoint, storage
from scaletrain.attempts import Attempts, read_attempts, read_signs
from scaletrain.errors import CheckpointError, NotFoundError
from scaletrain.goodput import account
from scaletrain.layout import RunLayout, step_of
from scaletrain.metrics import read_attempt_records
from scaletrain.verify import verify_run
from soaking.observed import Commit, Flip, Line, Observed, Resume

ArmName = Literal["scaletrain", "stock"]
BUCKET = "s3://soak"
ROOT = f"{BUCKET}/root"
STEPS = 10**7  # nobody gets there
SAVE_EVERY, GLOBAL_BATCH, MICRO_BATCH = 20, 12, 2
CONFIG = f"""
name: soak
storage: {{root: {ROOT}}}
model: {{init: random, size: {{vocab_size: 384, hidden_size: 32, num_layers: 2, num_heads: 4}}}}
data:
  corpora: [{{format: chatterbot, source: "package:chatterbot_corpus/data/english/*.yml"}}]
  seq_len: 64
  validation: 0
train: {{steps: {STEPS}, global_batch_size: {GLOBAL_BATCH}, micro_batch_size: {MICRO_BATCH}, learning_rate: 1.0e-4,
        schedule: constant, device: cpu, timeout_s: 60}}
zero: {{stage: 2}}
checkpoint: {{every_steps: {SAVE_EVERY}, keep: 3}}
scaling: {{workers: {{min: 1, max: 2}}, cpus_per_worker: 2}}
track: {{tensorboard: false}}
"""
_STOCK = Path(__file__).parents[1] / "peers/stock_ray_train.py"


@dataclass(frozen=True)
class Prepared:
    """What both arms are given, in local folders: dataset and model, as `scaletrain prepare` made them below `root`.

    `extensions` is what DeepSpeed would compile at its first start, for a minute: each arm has a copy of it.
    """

    root: str
    dataset: str
    model: str
    extensions: str


class Arm(Protocol):
    """One kind of training; `seen` grows with every `look`."""

    seen: Observed

    def command(self) -> list[str]:
        """What a user types, again and again the same."""

    def look(self) -> None:
        """Take in what has come since the last call."""

    def newest_files(self) -> tuple[int, list[str]]:
        """The step and the URLs of the files of the newest committed checkpoint; none where there is none."""

    def verify(self) -> dict[str, Any]:
        """The proof of the whole run, after its end."""


@dataclass
class Scaletrain:
    """`scaletrain train`, on one or two workers as there are machines."""

    folder: Path
    seen: Observed = field(default_factory=Observed)
    _run: RunLayout = field(default_factory=lambda: RunLayout(ROOT, "soak"))
    _tails: dict[Path, int] = field(default_factory=dict)
    _steps: set[tuple[int, int]] = field(default_factory=set)
    _commits: set[tuple[str, str]] = field(default_factory=set)

    def command(self) -> list[str]:
        config = self.folder / "soak.yaml"
        config.write_text(CONFIG)
        return [SCALETRAIN, "train", str(config)]

    def look(self) -> None:
        self._look_at_steps()
        self._look_at_commits()
        self._look_at_attempts()

    def newest_files(self) -> tuple[int, list[str]]:
        newest = checkpoint.latest(self._run)
        if newest is None:
            return 0, []
        return newest.step, [storage.join(self._run.checkpoint(newest.step), file.name) for file in newest.files]

    def verify(self) -> dict[str, Any]:
        for attempt, records in read_attempt_records(self._run.metrics).items():
            for record in records.values():
                self._add_line(attempt, record)
        self.seen.lines.sort(key=lambda line: line.time)
        return {"verdict": verify_run(self._run).record(), "goodput": account(self._run).goodput}

    def _look_at_steps(self) -> None:
        """From the machines' own disks, where each step's line is at once; the bucket gets it seconds later."""
        for path in self.folder.glob("node-*/tmp/scaletrain-soak-*/metrics-attempt-*.jsonl"):
            try:
                with path.open("rb") as file:
                    file.seek(self._tails.get(path, 0))
                    whole, _, _ = file.read().rpartition(b"\n")
            except FileNotFoundError:  # an attempt that ended in order, just now: the bucket has its lines
                continue
            self._tails[path] = self._tails.get(path, 0) + (len(whole) + 1 if whole else 0)
            attempt = int(path.stem.rpartition("-")[2])
            for line in whole.splitlines():
                self._add_line(attempt, json.loads(line))

    def _add_line(self, attempt: int, record: Mapping[str, Any]) -> None:
        if (attempt, record["step"]) not in self._steps:
            self._steps.add((attempt, record["step"]))
            ended = datetime.fromisoformat(str(record["time"])).timestamp()
            step_s = record["step_s"] - record["checkpoint_stall_s"]
            self.seen.lines.append(Line(ended, attempt, record["step"], step_s, record["world_size"]))

    def _look_at_commits(self) -> None:
        for info in storage.list_objects(self._run.checkpoints):
            folder, _, name = info.url.rpartition("/")
            step = step_of(folder.rpartition("/")[2])
            if name != checkpoint.MANIFEST or step is None or (info.url, info.version) in self._commits:
                continue
            try:
                manifest = checkpoint.load_manifest(folder)
            except (NotFoundError, CheckpointError):
                continue  # it was removed or replaced just now
            self._commits.add((info.url, info.version))
            self.seen.commits.append(Commit(time.time(), manifest.attempt, step))

    def _look_at_attempts(self) -> None:
        known = read_attempts(self._run)
        for number in sorted(set(known.resumed_from) - {each.attempt for each in self.seen.resumes}):
            step = known.resumed_from[number]
            signs = read_signs(self._run, Attempts((number,), (), {number: step}))[number]
            assert signs.began is not None and signs.claimed is not None
            self.seen.resumes.append(Resume(signs.began, signs.claimed, number, step, self._is_whole(step)))

    def _is_whole(self, step: int) -> bool:
        if step == 0:
            return True
        try:
            checkpoint.verify(self._run.checkpoint(step))
        except (NotFoundError, CheckpointError) as error:
            print(f"step {step} was resumed from, and does not verify: {error}", file=sys.stderr, flush=True)
            return False
        return True


@dataclass
class Stock:
    """The same training with stock Ray Train, on two workers always."""

    folder: Path
    data: Prepared
    seen: Observed = field(default_factory=Observed)
    _read_bytes: int = 0
    _attempt: int = 0

    def command(self) -> list[str]:
        return [
            *(sys.executable, str(_STOCK), "--model", self.data.model, "--dataset", self.data.dataset),
            *("--storage", f"{BUCKET}/ray", "--log", str(self._log), "--name", "soak", "--workers", "2"),
            *("--steps", str(STEPS), "--save-every", str(SAVE_EVERY)),
            *("--global-batch", str(GLOBAL_BATCH), "--micro-batch", str(MICRO_BATCH)),
        ]

    def look(self) -> None:
        if not self._log.exists():
            return
        with self._log.open("rb") as file:
            file.seek(self._read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def newest_files(self) -> tuple[int, list[str]]:
        self.look()
        if not self.seen.commits:
            return 0, []
        step = self.seen.commits[-1].step
        files = [info.url for info in storage.list_objects(f"{BUCKET}/ray/soak") if f"/global_step{step}/" in info.url]
        return step, files

    def verify(self) -> dict[str, Any]:
        return {}

    @property
    def _log(self) -> Path:
        return self.folder / "stock.jsonl"

    def _take(self, told: Mapping[str, Any]) -> None:
        when, step = told["time"], told["step"]
        if told["event"] == "begins":
            self._attempt += 1
            self.seen.resumes.append(Resume(when, when, self._attempt, step, None))
        elif told["event"] == "saved":
            self.seen.commits.append(Commit(when, self._attempt, step))
        else:
            line = Line(when, self._attempt, step, told["step_s"], told["workers"], tuple(told["samples"]))
            self.seen.lines.append(line)


def make_arm(name: ArmName, folder: Path, data: Prepared) -> Arm:
    """The arm of a name, which works in a folder that all its machines see."""
    return Scaletrain(folder) if name == "scaletrain" else Stock(folder, data)


def flip_a_bit(arm: Arm, number: int) -> int:
    """Flip the `number`th bit (modulo its size) of the newest checkpoint's largest file; returns how many were."""
    step, urls = arm.newest_files()
    if not urls:
        return 0
    contents = {url: storage.read_bytes(url) for url in urls}
    url = max(sorted(contents), key=lambda each: len(contents[each]))
    damaged = bytearray(contents[url])
    # In the second half of it: there are tensors, in files of both kinds.
    place = len(damaged) // 2 + number // 8 % (len(damaged) // 4)
    damaged[place] ^= 1 << number % 8
    storage.write_bytes(url, bytes(damaged))
    arm.seen.flips.append(Flip(time.time(), step))
    return 1


def bucket_settings(endpoint_url: str) -> dict[str, str]:
    """How a process finds a bucket at an address, and nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def fill_bucket(data: Prepared) -> None:
    """Put the prepared dataset and model where scaletrain looks for them."""
    for folder, _, names in os.walk(data.root):
        for name in names:
            path = Path(folder) / name
            storage.write_bytes(storage.join(ROOT, str(path.relative_to(data.root))), path.read_bytes())

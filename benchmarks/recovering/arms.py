"""The two runs that lose workers: `scaletrain train` and its peer, told apart by nothing but their class."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scaletrain import attempts, storage
from scaletrain.config_file import parse_config
from scaletrain.data.prepare import Prepared, prepare
from scaletrain.errors import NotFoundError
from scaletrain.layout import RunLayout
from scaletrain.train.phases import read_phases

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from commands import kill_everything

WORKERS = 2
_SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))
_PEER = Path(__file__).parents[1] / "peers" / "stock_ray_train.py"
_STEPS, _SAVE_EVERY = 1_000_000, 40
_CONFIG = """
name: recovery
storage: {{root: {root}}}
model: {model}
data:
  corpora: [{{format: chitchat, source: "package:chitchat_dataset/dataset.json", limit: 600}}]
  seq_len: 128
  validation: 0
train: {{steps: {steps}, global_batch_size: {rows}, micro_batch_size: 2, device: cpu}}
zero: {{stage: 2}}
checkpoint: {{every_steps: {every}}}
scaling: {{workers: {workers}}}
"""
_RANDOM = "{init: random, size: {vocab_size: 2048, hidden_size: 128, num_layers: 4, num_heads: 4}}"


@dataclass(frozen=True)
class Setting:
    """What both arms train: a prepared dataset and model, and where their files go."""

    folder: Path
    config: str
    prepared: Prepared
    rows: int

    @classmethod
    def prepare(cls, folder: Path, *, model: str | None) -> "Setting":
        """Prepare the dataset and the model."""
        rows = 4 if model else 12
        section = f"{{source: {json.dumps(model)}}}" if model else _RANDOM
        text = _CONFIG.format(
            root=folder / "bucket", model=section, steps=_STEPS, rows=rows, every=_SAVE_EVERY, workers=WORKERS
        )
        path = folder / "recovery.yaml"
        path.write_text(text)
        return cls(folder, str(path), prepare(parse_config(text, source=str(path)), use_ray=False), rows)


class Arm(Protocol):
    """A training run that is going on."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def last_step(self) -> int:
        """The newest step that it has told of; 0 before the first."""

    def phases(self) -> dict[str, float]:
        """The times of the newest group's phases; empty before its first step."""

    def resumed_from(self) -> int:
        """The step that the newest group went on from."""

    def own_s(self, phases: dict[str, float]) -> float | None:
        """What of the recovery the arm's own code added."""


class Ours:
    """`scaletrain train`."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.run = RunLayout(str(setting.folder / "bucket"), name)
        self.log = setting.folder / f"{name}.log"
        self._scratch = setting.folder / f"scratch-{name}"  # rank 0 keeps its newest lines there
        self._scratch.mkdir()
        # Ray's sockets need a short path.
        self._environment = {"TMPDIR": str(self._scratch), "RAY_TMPDIR": "/tmp"}
        self._setting = setting

    @contextmanager
    def running(self) -> Iterator["Ours"]:
        command = [_SCALETRAIN, "train", self._setting.config, f"name={self.run.name}"]
        with _running(command, self.log, **self._environment) as process:
            self.process = process
            yield self

    def last_step(self) -> int:
        files = list(self._scratch.glob("*/metrics-attempt-*.jsonl"))
        return _last_step(max(files, key=lambda file: file.name)) if files else 0

    def phases(self) -> dict[str, float]:
        try:
            return read_phases(self.run, attempts.read_attempts(self.run).newest)
        except NotFoundError:
            return {}

    def resumed_from(self) -> int:
        known = attempts.read_attempts(self.run)
        return known.resumed_from[known.newest]

    def own_s(self, phases: dict[str, float]) -> float | None:
        known = attempts.read_attempts(self.run)
        signs = attempts.read_signs(self.run, known)
        ended, claimed = signs[known.newest - 1].ended, signs[known.newest].claimed
        assert ended is not None and claimed is not None
        in_worker = ("imported", "found"), ("engine", "restored"), ("restored", "ready"), ("ready", "first_batch")
        return claimed - ended + sum(phases[end] - phases[begin] for begin, end in in_worker)


class Stock:
    """The peer."""

    def __init__(self, setting: Setting, name: str) -> None:
        self._setting = setting
        self._name = name
        self._told = setting.folder / f"stock-{name}.jsonl"
        self._told.touch()
        self.log = setting.folder / f"stock-{name}.log"

    @contextmanager
    def running(self) -> Iterator["Stock"]:
        setting = self._setting
        options = {
            "model": storage.local_path(setting.prepared.model_url),
            "dataset": storage.local_path(setting.prepared.dataset_url),
            "storage": setting.folder / "stock",
            "log": self._told,
            "steps": _STEPS,
            "save-every": _SAVE_EVERY,
            "workers": WORKERS,
            "global-batch": setting.rows,
            "micro-batch": 2,
            "name": self._name,
        }
        command = [sys.executable, str(_PEER), *(f"--{name}={value}" for name, value in options.items())]
        with _running(command, self.log) as process:
            self.process = process
            yield self

    def last_step(self) -> int:
        return _last_step(self._told)

    def phases(self) -> dict[str, float]:
        lines = self._lines()
        begins = [place for place, line in enumerate(lines) if line["event"] == "begins"]
        after = [line["time"] for line in lines[begins[-1] :] if line["event"] == "step"] if begins else []
        return {**lines[begins[-1]]["phases"], "first_step": after[0]} if after else {}

    def resumed_from(self) -> int:
        return int([line["step"] for line in self._lines() if line["event"] == "begins"][-1])

    def own_s(self, phases: dict[str, float]) -> float | None:
        return None

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._told.read_text().splitlines()]


@contextmanager
def _running(command: list[str], log: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that goes on until it is no longer needed; then it and all below it are killed."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_everything(process.pid)
        process.wait()


def _last_step(file: Path) -> int:
    """The newest step in a file of JSON lines, of which the last one may be half-written."""
    try:
        lines = file.open("rb")
    except FileNotFoundError:  # its process has ended this moment
        return 0
    with lines:
        lines.seek(max(0, os.fstat(lines.fileno()).st_size - 4096))
        whole = [line for line in lines.read().split(b"\n")[1:-1] if b'"step"' in line]
    return int(json.loads(whole[-1])["step"]) if whole else 0

"""Runs as training leaves them in a bucket, written by hand: attempts with chosen ends, and metrics of each step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import orjson

from saved_checkpoint import save
from scaletrain import storage, yaml_text
from scaletrain.cost import Prices, note_rate, rate_of
from scaletrain.evaluate import curve
from scaletrain.evaluate.answers import Answers
from scaletrain.evaluate.calibration import calibration
from scaletrain.evaluate.measurement import Measurement, Subject
from scaletrain.evaluate.measurement import save as save_measurement
from scaletrain.evaluate.samples import Sample
from scaletrain.layout import RunLayout, part_name
from scaletrain.this_machine import Machine

BEGAN = 1_700_000_000.0  # of every run, in seconds since 1970
STEP_S = 2.0


@dataclass(frozen=True)
class Act:
    """An attempt: its first and last step, on how many workers, how it ends, and the command that made it."""

    first: int
    last: int
    workers: int = 2
    end: Literal["done", "lost", "killed"] = "done"
    command: int = 1


FAULTY = (
    Act(1, 40, workers=2, end="lost"),
    Act(33, 60, workers=1),  # went on from step 32; then more workers could be had
    Act(61, 80, workers=3, end="killed"),
    Act(73, 100, workers=3, command=2),
)


def write_run(
    root: Path | str,
    name: str,
    *,
    acts: Sequence[Act] = FAULTY,
    total_steps: int = 100,
    usd_per_hour: float | None = 3.6,
    settings: Mapping[str, object] | None = None,
    fall: float = 1.0,
) -> RunLayout:
    """Write a run whose attempts follow one another, ten seconds apart; `fall` is how fast its loss does."""
    run = RunLayout(str(root), name)
    train = {"steps": total_steps, "global_batch_size": 8, "learning_rate": 1e-3, **(settings or {})}
    tree = {"name": name, "model": {"init": "random"}, "train": train, "zero": {"stage": 2}}
    storage.write_text(run.config, yaml_text.dump(tree))
    now = BEGAN
    for number, act in enumerate(acts, start=1):
        claim = {"started": stamp(now), "host": "h", "machine": "m", "pid": act.command, "process_started": 1}
        storage.write_bytes(run.attempt(number), orjson.dumps(claim))
        storage.write_bytes(run.attempt_from(number, act.first - 1), orjson.dumps({"time": stamp(now + 5)}))
        note_rate(run, number, rate_of([Machine("m")], Prices(flat=usd_per_hour)))
        now += 6
        lines = []
        for step in range(act.first, act.last + 1):
            now += STEP_S
            lines.append(_line(step, now, act.workers, total_steps, usd_per_hour, fall))
        storage.write_bytes(storage.join(run.metrics, part_name(number, 1)), b"\n".join(map(orjson.dumps, lines)))
        if act.end == "killed":
            storage.write_bytes(run.attempt_file(number, "heartbeat"), orjson.dumps({"time": stamp(now), "beat": 1}))
        else:
            note = {"time": stamp(now + 1), "failed": act.end == "lost"}
            storage.write_bytes(run.attempt_file(number, "ended"), orjson.dumps(note))
        now += 10
    if acts:
        save(run, acts[-1].last, attempt=len(acts))
    return run


def add_evaluation(run: RunLayout, *, step: int, reply: str, prompt: str = "Hello!", nll: float = 30.0) -> None:
    """Leave a measurement of one answer to one prompt, and its point of the curve."""
    subject = Subject("", step, "tiny-1", "f0" if step else "", "abc", 3, "fp32", (prompt,), 8, None, (), 0, 0)
    ones, zeros = np.ones(4, np.int64), np.zeros(4, np.int64)
    answers = Answers(
        corpora=("chat",),
        languages=("en",),
        conversation=np.arange(4),
        corpus=zeros,
        language=zeros,
        depth=ones,
        tokens=10 * ones,
        size_bytes=40 * ones,
        nll=np.array([nll, nll + 2, nll - 1, nll + 1]),
    )
    measured = Measurement(
        subject=subject,
        answers=answers,
        calibration=calibration(np.array([0.5, 0.9]), np.array([True, False])),
        texts=(),
        samples=(Sample(prompt, reply, 3, True),),
        device="cpu",
        seconds=1.0,
        time="2027-01-01T00:00:00+00:00",
    )
    save_measurement(storage.join(run.evaluation, f"{subject.label}.json"), measured)
    curve.add(run, measured)


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _line(
    step: int, now: float, workers: int, total_steps: int, usd_per_hour: float | None, fall: float
) -> dict[str, object]:
    wobble = 0.15 * math.sin(step * 12.9898)
    line: dict[str, object] = {
        "step": step,
        "loss": 2 + 6 * math.exp(-3 * fall * step / total_steps) + wobble,
        "learning_rate": 1e-3 * (1 + math.cos(math.pi * step / total_steps)) / 2,
        "grad_norm": 1.5 + wobble,
        "samples_seen": 8 * step,
        "supervised_tokens": 300,
        "tokens": 500,
        "tokens_per_s": 250.0 * workers + 20 * wobble,
        "step_s": STEP_S,
        "data_wait_s": 0.1,
        "checkpoint_stall_s": 0.5 if step % 8 == 0 else 0.0,
        "world_size": workers,
        "memory_bytes": 1_500_000_000,
        "time": stamp(now),
    }
    if step % 10 == 0:
        line |= {"validation_loss": 2.1, "validation_perplexity": 40 * math.exp(-step / total_steps)}
    if usd_per_hour is not None:
        line |= {"usd_per_hour": usd_per_hour, "cost_usd": (now - BEGAN) / 3600 * usd_per_hour}
    return line

"""What every arm of benchmarks/streaming.py does with its reader: pull, or sleep as if it trained, and tell.

It runs in two environments, scaletrain's and the peers', and so needs numpy alone. An arm is a function of a `Reading`
that yields the rows of each step.
"""

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS_A_STEP = 32
PACE_TOKENS_PER_S = 1_000_000


@dataclass(frozen=True)
class Reading:
    """One pass over the data by one rank; `cache` is an empty folder of this reading alone."""

    arm: str
    task: str
    url: str
    endpoint_url: str
    cache: str
    num_rows: int
    steps: int
    seed: int


@dataclass(frozen=True)
class Step:
    """What a rank gets for one step: input_ids and labels of shape [ROWS_A_STEP, seq_len]."""

    input_ids: Any
    labels: Any


Arm = Callable[[Reading], Generator[Step, None, None]]


def main(arms: dict[str, Arm]) -> None:
    """Do what the command line asks, the JSON of a Reading; after the first step and the last, wait for a line."""
    reading = Reading(**json.loads(sys.argv[1]))
    began = time.perf_counter()
    with closing(arms[reading.arm](reading)) as steps:
        count = tokens_of(next(steps))
        tell({"first_s": time.perf_counter() - began})
        pause_s = count / PACE_TOKENS_PER_S if reading.task == "paced" else 0.0
        tell(consume(steps, reading.steps - 1, pause_s=pause_s))


def consume(steps: Iterator[Step], count: int, *, pause_s: float) -> dict[str, float]:
    """Sleep before each step for as long as computing would take, and see for how long the step is waited for."""
    waits_s = []
    tokens, began = 0, time.perf_counter()
    for _ in range(count):
        time.sleep(pause_s)
        asked = time.perf_counter()
        tokens += tokens_of(next(steps))
        waits_s.append(time.perf_counter() - asked)
    return {
        "tokens": tokens,
        "tokens_per_s": tokens / (time.perf_counter() - began),
        "waiting": sum(waits_s) / (sum(waits_s) + count * pause_s),
        "longest_wait_s": max(waits_s),
    }


def tokens_of(step: Step) -> int:
    """Count, and look at what would go to the device."""
    input_ids, labels = np.asarray(step.input_ids), np.asarray(step.labels)
    assert input_ids.shape == labels.shape and input_ids.shape[0] == ROWS_A_STEP, (input_ids.shape, labels.shape)
    return int(input_ids.size)


def tell(what: dict[str, float]) -> None:
    """Write a line of JSON, and go on when it was read: meanwhile the reader's CPU time is taken."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()

"""Runs of the real command line, as a user starts it, and what they leave behind."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))

TINY = """
name: tiny
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 384, hidden_size: 32, num_layers: 2, num_heads: 4}}}}
data:
  corpora: [{{format: chatterbot, source: "package:chatterbot_corpus/data/english/*.yml", limit: 200}}]
  seq_len: 64
  validation: 0.1
train: {{steps: 16, global_batch_size: 12, micro_batch_size: 2, learning_rate: 2.0e-3, device: cpu,
        deterministic: true}}
zero: {{stage: 2}}
checkpoint: {{every_steps: 4, keep: 10}}
scaling: {{workers: 2}}
evaluate: {{prompts: ["Hello"], max_new_tokens: 8}}
"""


def write_tiny(folder: Path, *, root: str) -> str:
    """Write the tiny configuration for a storage root; returns its path."""
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(root=root))
    return str(path)


def start(*arguments: str) -> "subprocess.Popen[str]":
    """Start a scaletrain command."""
    return subprocess.Popen([SCALETRAIN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str, exit_code: int = 0, timeout_s: float = 400) -> str:
    """Run a scaletrain command to its end and return its stdout, or its stderr where another exit code is expected.

    A command that ends otherwise, or does not end in time, fails the test and leaves no process behind.
    """
    process = start(*arguments)
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except BaseException:
        kill_everything(process.pid)
        raise
    assert process.returncode == exit_code, f"{arguments} ended with {process.returncode}\n{output}\n{errors}"
    return output if exit_code == 0 else errors


def descendants(pid: int, pattern: str = "") -> list[psutil.Process]:
    """The processes below one whose command line has the pattern; any of them may end while they are looked at."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if re.search(pattern, " ".join(process.cmdline())):
                found.append(process)
    return found


def kill_everything(pid: int) -> int:
    """SIGKILL a process and all its descendants, Ray's daemons and workers among them; returns how many."""
    parent = psutil.Process(pid)
    family = [*parent.children(recursive=True), parent]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=20)
    return len(family)


def wait_for(condition: Callable[[], Any], what: str, *, limit_s: float = 60) -> Any:
    """Return the condition's first true value, or fail after the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {limit_s} s: {what}")

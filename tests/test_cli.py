"""cli: it answers at once, teaches by its help, and ends bad input with exit code 2 and every problem."""

import subprocess
import sys
from pathlib import Path

import pytest

SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))
HERE = ("prepare", "train", "evaluate", "export", "chat", "config", "doctor", "runs", "show")
COMMANDS = (*HERE, "data", "submit", "jobs", "logs", "status", "stop", "down", "cluster")


def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([SCALETRAIN, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_command() -> None:
    """What there is can be found without the documentation."""
    shown = call("--help").stdout
    assert all(f"  {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """Each has a sentence on what it does, and no option without one."""
    result = call(command, "--help")
    assert result.returncode == 0
    assert f"Usage: scaletrain {command}" in result.stdout


def test_five_mistakes_give_five_problems_with_their_remedies(tmp_path: Path) -> None:
    """Nobody has to start a command five times to learn of five mistakes."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "name: my run\n"
        "model: {source: x, attension: sdpa}\n"
        "data: {corpora: [{format: chitchat, source: y}], seq_len: long}\n"
        "train: {steps: 10, epochs: 2, global_batch_size: 60, micro_batch_size: 8}\n"
    )
    result = call("config", str(path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("5 problems:"), result.stderr
    for part in ("name", "did you mean model.attention?", "data.seq_len: got", "keep one of the two", "use 6"):
        assert part in result.stderr


def test_an_unknown_option_ends_with_2() -> None:
    """The command line is input too."""
    assert call("train", "--locale").returncode == 2
    assert call("evaluate", "x.yaml", "--only", "both").returncode == 2

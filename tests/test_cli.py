"""cli: it answers at once, teaches by its help, and ends bad input with exit code 2 and every problem."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from command_lines import every_command
from scaletrain.cli import app

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


def test_the_list_of_commands_misses_none() -> None:
    """A new command is put among those that are for the same, once."""
    whole = get_command(app)
    assert sorted(whole.list_commands(whole.context_class(whole))) == sorted(whole.commands)


@pytest.mark.parametrize("group", ["", *sorted({path[0] for path in every_command() if len(path) > 1})])
def test_a_list_of_commands_cuts_no_sentence(group: str) -> None:
    """In 80 columns the first sentence of each command is whole."""
    command = get_command(app).commands[group] if group else get_command(app)
    context = command.context_class(command, info_name=group, terminal_width=80)
    assert "..." not in command.get_help(context).replace("[ARGS]...", "")


def test_every_option_says_what_it_is() -> None:
    """Each argument and option of each command has its words."""
    silent = [
        f"{' '.join(path)} {option.name}"
        for path, command in every_command().items()
        for option in command.params
        if not getattr(option, "help", None)
    ]
    assert silent == []


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


def test_settings_of_corpora_are_checked_with_the_rest(tmp_path: Path) -> None:
    """Two more mistakes that would stop the preparation, whose dumps need not be there yet."""
    path = tmp_path / "run.yaml"
    corpora = "[{format: chitchaat, source: y}, {format: messages, source: z, min_score: 3}]"
    path.write_text(f"name: mine\nmodel: {{source: x}}\ndata: {{corpora: {corpora}}}\ntrain: {{steps: 10}}\n")
    result = call("config", str(path))
    assert (result.returncode, result.stdout) == (2, "")
    for part in ("2 problems:", "did you mean chitchat?", "data.corpora.1.min_score"):
        assert part in result.stderr


@pytest.mark.parametrize("command", ["show", "export", "verify", "chat", "serve", "report", "data show"])
def test_a_configuration_whose_run_has_not_begun_is_told(tmp_path: Path, command: str) -> None:
    """One error with what to do, whatever is asked of it, and exit code 2."""
    path = tmp_path / "run.yaml"
    path.write_text(
        f"name: mine\nstorage: {{root: {tmp_path}/bucket}}\nmodel: {{source: x}}\n"
        "data: {corpora: [{format: chitchat, source: y}]}\ntrain: {steps: 10}\n"
    )
    more = {"export": ["there"], "chat": ["--prompt", "hi"]}.get(command, [])
    result = call(*command.split(), str(path), *more)
    assert (result.returncode, result.stdout) == (2, "")
    if command == "data show":  # a prepared dataset would do
        assert result.stderr.startswith(f"error: {path}: its run has not committed a step yet, and no prepared dataset")
    else:
        assert result.stderr.startswith("error: there is no run at ") and "scaletrain train CONFIG" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_option_ends_with_2() -> None:
    """The command line is input too."""
    assert call("train", "--locale").returncode == 2
    assert call("evaluate", "x.yaml", "--only", "both").returncode == 2


def test_a_configuration_without_a_command_is_told_where_it_belongs() -> None:
    """Who leaves the command out gets one to copy."""
    result = call("run.yaml", "train.steps=5")
    assert (result.returncode, result.stdout) == (2, "")
    assert "scaletrain train run.yaml" in result.stderr


def test_the_doctor_looks_at_the_sources_too(tmp_path: Path) -> None:
    """A line for each; a source that cannot be read ends it with 1."""
    path = tmp_path / "run.yaml"
    path.write_text(
        f"name: mine\nstorage: {{root: {tmp_path}/bucket}}\nmodel: {{source: x}}\n"
        f"data: {{corpora: [{{format: whatsapp, source: {tmp_path}/chats}}]}}\ntrain: {{steps: 10}}\n"
    )
    result = call("doctor", str(path))
    assert result.returncode == 1
    told = " ".join(result.stdout.split())  # the table wraps its cells
    assert "source whatsapp" in told and "nothing" in told and "fail" in told

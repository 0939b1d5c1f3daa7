"""Every scaletrain command that documents, scripts, configurations and messages name is one that the parser takes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_lines import every_command, problem_of, words_of

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")])
SCRIPTS = sorted(ROOT.glob("launch/*.sh"))
COMMENTED = sorted([*ROOT.glob("launch/configs/*.yaml"), *ROOT.glob("cluster/*.yaml"), ROOT / "launch/local.sh"])
SOURCES = sorted(ROOT.glob("src/scaletrain/**/*.py"))
COMMAND = r"(?:\.venv/bin/)?scaletrain (?=[a-z-])"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def typed(text: str) -> Iterator[str]:
    """What stands behind `scaletrain` in the lines of a document that are for typing in, without what a shell fills."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(rf"^ {{4,}}(?:\$ )?(?:echo [^|]+\| )?{COMMAND}(.+)$", text, re.M):
        yield re.sub(r"\{[a-z_.]+\}", "X", line)


def in_passing(text: str) -> Iterator[str]:
    """The same of what a text or a message names between backticks."""
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    for line in re.findall(rf"`{COMMAND}([^`]+)`", text):
        yield re.sub(r"(--step )?\{[^}]+\}", lambda found: "--step 7" if found[1] else "X", " ".join(line.split()))


def scripted(text: str) -> Iterator[str]:
    """The same of a script's own lines and of those that it prints."""
    text = re.sub(r"\\\n\s*", " ", text)
    for echo, line in re.findall(rf"^(?: *|exec |( *echo \" *)){COMMAND}(.+)$", text, re.M):
        line = re.sub(r"\$\{\w+:\+[^}]*\}", "", line.removesuffix('"') if echo else line)
        yield re.sub(r"\$(?:\w+|\([^)]*\)|\{[^}]*\})", "7", line)


def problems(lines: Iterator[str], *, passing: bool) -> list[str]:
    found = [(line, problem_of(words_of(line), in_passing=passing)) for line in lines]
    return [f"scaletrain {line}: {problem}" for line, problem in found if problem]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_commands_of_documents_are_right(document: Path) -> None:
    """Whoever copies a line from a document meets no unknown command or option."""
    text = document.read_text()
    assert problems(typed(text), passing=False) == []
    assert problems(in_passing(text), passing=True) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_commands_of_scripts_are_right(script: Path) -> None:
    """A journey does not end at its fifth command because an option was renamed."""
    lines = list(scripted(script.read_text()))
    assert len(lines) > 2
    assert problems(iter(lines), passing=False) == []


@pytest.mark.parametrize("file", COMMENTED, ids=_name)
def test_commands_in_comments_are_right(file: Path) -> None:
    """A configuration's own comment says how it is used."""
    comments = "\n".join(re.findall(r"#[ \t]*(.*)$", file.read_text(), re.M))
    lines = re.findall(rf"(?:^|then:? |: )\s*{COMMAND}(.+?)(?=   |; then|\"|$)", comments, re.M)
    assert problems(iter(lines), passing=False) == []
    assert problems(in_passing(comments), passing=True) == []


def test_commands_of_messages_are_right() -> None:
    """What an error tells the user to do can be done."""
    assert [each for source in SOURCES for each in problems(in_passing(source.read_text()), passing=True)] == []


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_examples_of_help_texts_are_right(path: tuple[str, ...]) -> None:
    """Every command's help ends with at least one line to copy, of that very command."""
    epilog = every_command()[path].epilog or ""
    lines = re.findall(r"^  scaletrain (.+)$", epilog, re.M)
    assert lines and problems(iter(lines), passing=False) == []
    names = " ".join(path).replace("runs list", "runs").replace("sweep run", "sweep")
    assert all(names in line for line in lines)


def test_the_check_finds_what_is_wrong() -> None:
    """An option that is none, a command that is none, a missing argument; but no argument is asked for in passing."""
    assert "--wrong" in problem_of(words_of("train run.yaml --wrong # with a comment"))
    assert "nosuch" in problem_of(words_of("nosuch run.yaml | less"))
    assert "--n0" in problem_of(words_of("submit --cluster c.yaml -- train run.yaml --n0"), in_passing=True)
    assert problem_of(words_of("show")) and not problem_of(words_of("show"), in_passing=True)
    assert words_of("replay RUN --step N [--rank R] [--only base|trained] > x; y") == [
        *("replay", "RUN", "--step", "7", "--rank", "7", "--only", "base")
    ]

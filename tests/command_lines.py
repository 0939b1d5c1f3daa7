"""Command lines as documents and help texts write them, checked by the parser that would run them."""

import re
import shlex
from typing import Any

import typer
from typer.main import get_command

from scaletrain.cli import app

_ENDS = ("|", "||", "&&", "&", ";", "<", ">")
_NUMBERS = ("N", "R", "LINES", "STEP")  # words that stand for one


def words_of(line: str) -> list[str]:
    """The words of a command line up to its end; what may be left out ([--rank R]) is taken as given."""
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in _ENDS or word.startswith(">"):
            break
        is_last = word.endswith(";")
        word = word.rstrip(";").removeprefix("[")
        word = word.removesuffix("]") if "[" not in word else word
        word = word.partition("|")[0] if re.fullmatch(r"[a-z]+(\|[a-z]+)+", word) else word
        if word not in ("...", ""):
            words.append("7" if word in _NUMBERS else word)
        if is_last:
            break
    return words


def problem_of(words: list[str], *, in_passing: bool = False) -> str:
    """What the parser says against the words behind `scaletrain`; "" for nothing.

    A command that is named in passing need not have all it needs.
    """
    name, command, context = "scaletrain", get_command(app), None
    try:
        while words or not in_passing:
            context = command.make_context(name, list(words), parent=context)
            left = [*context._protected_args, *context.args] if hasattr(command, "commands") else []
            if not left:
                wrong = [each for each in context.params.get("overrides") or () if "=" not in each]
                return f"{wrong[0]} is no SECTION.KEY=VALUE" if wrong else ""
            name, command, words = command.resolve_command(context, left)
            if name == "submit" and "--" in words:
                inner = problem_of(words[words.index("--") + 1 :], in_passing=in_passing)
                if inner:
                    return inner
    except typer.Exit:
        return ""
    except typer.TyperException as error:
        is_short = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError", "BadOptionUsage")
        return "" if in_passing and is_short else f"{type(error).__name__}: {error}"
    return ""


def every_command(group: Any = None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command of scaletrain that does something, by its words."""
    group = get_command(app) if group is None else group
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= every_command(command, (*path, name))
        else:
            found[(*path, name)] = command
    return found

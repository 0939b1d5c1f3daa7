"""Judges' names and the tokens of their links."""

import hashlib
import hmac
import re
from collections.abc import Sequence

from scaletrain.errors import ConfigError

_LONGEST = 40
_NAME = re.compile(r"[\w.@+'-]+(?: [\w.@+'-]+)*")


def judge_name(name: str) -> str:
    """A judge's name without blanks around it; ValueError for one that is none."""
    stripped = name.strip()
    if len(stripped) > _LONGEST or not _NAME.fullmatch(stripped):
        raise ValueError(f"give a name of letters, digits and .@+'-_, with at most {_LONGEST} characters")
    return stripped


def judge_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of judges, each once; ConfigError lists those that are none."""
    problems, found = [], []
    for name in names:
        try:
            found.append(judge_name(name))
        except ValueError as exc:
            problems.append(f"--judge {name!r}: {exc}")
    if problems:
        raise ConfigError(problems)
    return tuple(dict.fromkeys(found))


def judge_token(secret: bytes, judge: str) -> str:
    """The token of a judge's link: the same as long as the database lives, and not to be guessed from the name."""
    return hmac.new(secret, f"judge {judge}".encode(), hashlib.sha256).hexdigest()[:32]

"""The conditions of IAM's bindings: the part of CEL that speaks of a resource's name, type and service.

https://cloud.google.com/iam/docs/conditions-attribute-reference
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scaletrain.emulator.google_request import Refusal

_TOKEN = re.compile(r"""\s*("[^"]*"|'[^']*'|\|\||&&|==|!=|!|[(),.]|\w+)""")
_TESTS: dict[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
}


@dataclass(frozen=True)
class Subject:
    """What a condition may ask about: the resource, and the attributes that the API gives with the request."""

    name: str = ""
    type: str = ""
    service: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def holds(expression: str, subject: Subject) -> bool:
    """Evaluate a condition; raises the API's refusal of one that is no CEL, or more than is emulated."""
    tokens: deque[str] = deque(_TOKEN.findall(expression))
    try:
        value = _either(tokens, subject)
    except (IndexError, KeyError, TypeError, AttributeError):
        raise Refusal(400, "badRequest", f"Condition expression is invalid or not emulated: {expression}") from None
    if tokens or not isinstance(value, bool):
        raise Refusal(400, "badRequest", f"Condition expression is invalid or not emulated: {expression}")
    return value


def _either(tokens: deque[str], subject: Subject) -> Any:
    value = _both(tokens, subject)
    while tokens and tokens[0] == "||":
        tokens.popleft()
        other = _both(tokens, subject)
        value = value or other
    return value


def _both(tokens: deque[str], subject: Subject) -> Any:
    value = _compared(tokens, subject)
    while tokens and tokens[0] == "&&":
        tokens.popleft()
        other = _compared(tokens, subject)
        value = value and other
    return value


def _compared(tokens: deque[str], subject: Subject) -> Any:
    if tokens[0] == "!":
        tokens.popleft()
        return not _compared(tokens, subject)
    value = _value(tokens, subject)
    if tokens and tokens[0] in ("==", "!="):
        same = tokens.popleft() == "=="
        return (value == _value(tokens, subject)) is same
    return value


def _value(tokens: deque[str], subject: Subject) -> Any:
    token = tokens.popleft()
    if token == "(":
        value = _either(tokens, subject)
        tokens.popleft()
    elif token[0] in "\"'":
        value = token[1:-1]
    elif token in ("true", "false"):
        value = token == "true"
    elif token == "resource":
        tokens.popleft()
        value = {"name": subject.name, "type": subject.type, "service": subject.service}[tokens.popleft()]
    elif token == "api":
        tokens.popleft()
        _expect(tokens.popleft(), "getAttribute")
        name, default = _arguments(tokens, subject)
        value = subject.attributes.get(name.rpartition("/")[2], default)
    else:
        raise KeyError(token)
    while tokens and tokens[0] == ".":
        tokens.popleft()
        test = _TESTS[tokens.popleft()]
        value = test(value, *_arguments(tokens, subject))
    return value


def _expect(found: str, wanted: str) -> None:
    if found != wanted:
        raise KeyError(found)


def _arguments(tokens: deque[str], subject: Subject) -> list[Any]:
    _expect(tokens.popleft(), "(")
    values = [_either(tokens, subject)]
    while tokens[0] == ",":
        tokens.popleft()
        values.append(_either(tokens, subject))
    tokens.popleft()
    return values

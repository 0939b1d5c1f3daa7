"""The filter of Compute Engine's lists: `(labels.a = b) AND (NOT labels.c:*) OR status != RUNNING`.

https://cloud.google.com/compute/docs/reference/rest/v1/instances/list, with equality, presence and plain words in place
of regular expressions and numbers.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from scaletrain.emulator.google_request import Refusal, Resource

_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\(|\)|!=|=|:|[^\s()=:!"]+)')


def matches(expression: str, resource: Resource) -> bool:
    """Tell whether a resource passes a filter; an empty filter passes all."""
    words: deque[str] = deque(_WORD.findall(expression))
    if not words:
        return True
    try:
        found = _either(words, resource)
    except IndexError:
        raise Refusal(400, "invalid", f"Invalid list filter expression: {expression}") from None
    if words:
        raise Refusal(400, "invalid", f"Invalid list filter expression at {words[0]}: {expression}")
    return found


def _either(words: deque[str], resource: Resource) -> bool:
    return _chain(words, "OR", lambda: _chain(words, "AND", lambda: _term(words, resource), all), any)


def _chain(words: deque[str], word: str, part: Callable[[], bool], join: Callable[[list[bool]], bool]) -> bool:
    """Terms side by side without a word between them are joined by AND."""
    values = [part()]
    while words and (words[0] == word or (word == "AND" and words[0] not in (")", "OR"))):
        if words[0] == word:
            words.popleft()
        values.append(part())
    return join(values)


def _term(words: deque[str], resource: Resource) -> bool:
    word = words.popleft()
    if word == "NOT":
        return not _term(words, resource)
    if word == "(":
        found = _either(words, resource)
        words.popleft()
        return found
    value = _value(resource, word)
    operator, wanted = words.popleft(), words.popleft().strip('"')
    if operator == ":":
        return value is not None and (wanted == "*" or wanted in str(value))
    return (_text(value) == wanted) is (operator == "=")


def _value(resource: Any, path: str) -> Any:
    for part in path.split("."):
        resource = resource.get(part) if isinstance(resource, dict) else None
    return resource


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)

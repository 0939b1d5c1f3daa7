"""Asking a language model through an OpenAI-compatible URL (POST {url}/chat/completions), with patience and a limit.

The key comes from an environment variable; it is sent as a header and is in no message, log or file.
"""

import os
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scaletrain.errors import ConfigError, ScaletrainError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 120.0
_TRIES = 4
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_AGAIN = (408, 409, 429, 500, 502, 503, 504)


class JudgeError(ScaletrainError):
    """The judge cannot be asked at all: it is not there, or it refuses the key or the model."""

    exit_code = 2


class NoAnswerError(Exception):
    """One question got no answer, for a reason that others need not have."""


@dataclass(frozen=True)
class Judge:
    """Which model is asked where; `url` ends before /chat/completions, `key_variable` names where the key is."""

    url: str
    model: str
    key_variable: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        problems = []
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problems.append(f"--judge-url={_shown(self.url)}: give a URL as https://api.example.com/v1")
        if parts.username or parts.password or parts.query:
            problems.append(
                "--judge-url: has a user, a password or a query in it; put the key into the environment variable "
                f"{self.key_variable} instead"
            )
        if not self.model:
            problems.append("--judge-model: missing; name the model that is to judge")
        if find_spec("httpx") is None:
            problems.append("--judge-url: httpx is not installed; pip install 'scaletrain[evaluate]'")
        if problems:
            raise ConfigError(problems)


def ask(client: "httpx.Client", judge: Judge, messages: list[dict[str, str]], *, max_tokens: int) -> str:
    """Return the model's answer, at temperature 0; a busy or failing server is asked again, each time later.

    Raises NoAnswerError where none comes, and JudgeError where no other question would get one either.
    """
    import httpx

    body = {"model": judge.model, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
    wait_s, problem = _FIRST_WAIT_S, ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        try:
            response = client.post(f"{judge.url.rstrip('/')}/chat/completions", json=body)
        except httpx.ConnectError as error:
            raise JudgeError(f"--judge-url={judge.url}: nobody answers there ({error}); is the server up?") from error
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
            continue
        if response.status_code in _AGAIN:
            problem = f"status {response.status_code}"
            wait_s = max(wait_s, _asked_to_wait_s(response))
            continue
        return _content(response, judge)
    raise NoAnswerError(problem)


def http_client(judge: Judge) -> "httpx.Client":
    """A client with the judge's key, where its environment variable is set; it follows no redirects."""
    import httpx

    key = os.environ.get(judge.key_variable)
    return httpx.Client(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=TIMEOUT_S)


def _content(response: "httpx.Response", judge: Judge) -> str:
    status = response.status_code
    if status in (401, 403):
        raise JudgeError(f"{judge.url} refuses the key (status {status}); put it into {judge.key_variable}")
    if status == 404:
        raise JudgeError(f"{judge.url} knows no model {judge.model} (or no /chat/completions); see its /models")
    if status >= 300:
        raise JudgeError(f"{judge.url} does not take the question (status {status}): {response.text[:300]}")
    try:
        content: Any = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NoAnswerError("what came back is no chat completion") from error
    if not isinstance(content, str):
        raise NoAnswerError("what came back has no text")
    return content


def _asked_to_wait_s(response: "httpx.Response") -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), _LONGEST_WAIT_S) if value.isdigit() else 0.0


def _shown(url: str) -> str:
    return url.rpartition("@")[2]

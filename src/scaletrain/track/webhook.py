"""A message to a webhook, as Slack, Discord and Mattermost take it. Its URL is a secret, and is in no log or error."""

import time
from collections.abc import Callable, Mapping
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import orjson

from scaletrain.log import visible

_TIMEOUT_S = 10
_WAITS_S = (1.0, 2.0, 4.0, 8.0)  # before each further try
_LONGEST_WAIT_S = 60.0
_LONGEST_TEXT = 1900  # Discord takes 2,000 characters
_TRY_AGAIN = (408, 425, 429)


class UndeliveredError(Exception):
    """A message was not taken; says why, without the URL."""


def check_url(url: str) -> str | None:
    """What is wrong with a webhook's URL, without showing it; None where nothing is."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    return None if is_url else "holds no URL that begins with http:// or https://"


def post(url: str, text: str, *, facts: Mapping[str, object], sleep: Callable[[float], object] = time.sleep) -> None:
    """Send a text, and facts for programs; tries again for some 15 s. Raises UndeliveredError, which says why.

    Slack and Mattermost read `text`, Discord `content`; each ignores what it does not know. Nobody is pinged by what
    an error message happens to hold (https://discord.com/developers/docs/resources/message#allowed-mentions-object).
    """
    text = visible(text)
    text = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
    body = orjson.dumps({"text": text, "content": text, "allowed_mentions": {"parse": []}, **facts})
    request = Request(url, data=body, headers={"Content-Type": "application/json", "User-Agent": "scaletrain"})
    for wait_s in (*_WAITS_S, None):
        try:
            with urlopen(request, timeout=_TIMEOUT_S):
                return
        except HTTPError as error:
            failure, asked_s = f"it answers with status {error.code}", _asked_wait_s(error)
            may_help = error.code in _TRY_AGAIN or error.code >= 500
            error.close()
        except (URLError, OSError) as error:
            failure, asked_s, may_help = f"it cannot be reached ({_reason(error)})", 0.0, True
        if wait_s is None or not may_help:
            raise UndeliveredError(failure)
        sleep(max(wait_s, asked_s))


def _asked_wait_s(error: HTTPError) -> float:
    """How long a server asks to be left alone, as far as we heed it."""
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT_S) if asked.replace(".", "", 1).isdecimal() else 0.0


def _reason(error: OSError) -> str:
    """Why a connection failed, by the kind of failure alone: its text may hold the URL."""
    inner = getattr(error, "reason", error)
    return type(inner if isinstance(inner, Exception) else error).__name__

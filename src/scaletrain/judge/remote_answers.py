"""Answers of a model behind an OpenAI-compatible server, named as https://host/v1#MODEL."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from scaletrain.errors import ModelError
from scaletrain.judge.contenders import server_and_model
from scaletrain.judge.items import Message
from scaletrain.model.generate import Sampling

_AT_ONCE = 8
_TIMEOUT_S = 300.0
_PAUSES_S = (1.0, 4.0, 15.0)  # before another try where a server is busy or does not answer
_BUSY = (408, 429, 500, 502, 503, 504)
_SHOWN_CHARACTERS = 300


def remote_answers(
    model: str,
    prompts: Sequence[Sequence[Message]],
    sampling: Sampling,
    *,
    key: str | None,
    pauses_s: Sequence[float] = _PAUSES_S,
) -> Iterator[str]:
    """Yield the server's answer to each prompt, in order, eight of them asked at once.

    `key` is sent as the bearer token. A busy server is asked again. Raises ModelError with what the server said.
    """
    url, name = server_and_model(model)

    def ask(place: int) -> str:
        body = {
            "model": name,
            "messages": [dict(message) for message in prompts[place]],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed + place
        return _answer(url, orjson.dumps(body), key, pauses_s)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(ask, range(len(prompts)))


def _answer(url: str, body: bytes, key: str | None, pauses_s: Sequence[float]) -> str:
    for pause_s in (*pauses_s, None):
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        if key is not None:
            request.add_unredirected_header("authorization", f"Bearer {key}")  # another host never sees it
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                return _content(url, response.read())
        except urllib.error.HTTPError as exc:
            said = exc.read()[:_SHOWN_CHARACTERS].decode(errors="replace")
            if exc.code not in _BUSY or pause_s is None:
                raise ModelError(f"{url} answered {exc.code}: {said or exc.reason}") from exc
        except OSError as exc:  # URLError, a time-out, a connection that broke
            if pause_s is None:
                raise ModelError(f"{url} does not answer ({getattr(exc, 'reason', exc)})") from exc
        time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _content(url: str, answer: bytes) -> str:
    try:
        record: Any = orjson.loads(answer)
        return str(record["choices"][0]["message"]["content"] or "")
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as exc:
        shown = answer[:_SHOWN_CHARACTERS].decode(errors="replace")
        raise ModelError(f"{url} is no OpenAI-compatible server: it answered {shown}") from exc

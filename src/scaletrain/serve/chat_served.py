"""A model behind an OpenAI-compatible URL: `scaletrain serve`, vLLM, llama.cpp's server, OpenAI itself and others.

Protocol: https://platform.openai.com/docs/api-reference/chat; answers come as server-sent events. The key is read from
the environment and goes into the header of requests, nowhere else.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from scaletrain.errors import ConfigError, ModelError
from scaletrain.event_stream import DONE, EventStream
from scaletrain.log import get_logger
from scaletrain.model.prompt import Message, without_oldest_exchange
from scaletrain.model.sampling import Sampling
from scaletrain.serve.chat_model import Tally

KEY_VARIABLE = "SCALETRAIN_API_KEY"

_CONNECT_TIMEOUT_S = 10.0
_SILENCE_TIMEOUT_S = 600.0  # a busy server may let a request wait its turn
_NAMES_SHOWN = 20
_TOO_LONG = "context_length_exceeded"  # OpenAI's code for it, and others'
_CONTEXT_FIELDS = ("context_tokens", "max_model_len", "context_length", "context_window")  # ours, vLLM's, others'

log = get_logger(__name__)


def connect(url: str, name: str | None = None) -> "ServedModel":
    """Ask a server for its models and take the one of that name, or the only one.

    `url` ends before /chat/completions, as in http://127.0.0.1:8000/v1. Raises ConfigError for a name that is missing
    or not there, ModelError where the server does not answer as it should.
    """
    url = url.rstrip("/")
    _check_url(url)
    listed = _list_models(url)
    if name is None and len(listed) != 1:
        raise ConfigError(f"{url} has {len(listed)} models; choose one with --model: {_named(listed)}")
    name = name if name is not None else next(iter(listed))
    if name not in listed:
        raise ConfigError(f"{url} has no model {name}; there are {_named(listed)}")
    return ServedModel(url, name, context_tokens=listed[name])


class ServedModel:
    """One model of a server; nothing is held open between answers."""

    def __init__(self, url: str, name: str, *, context_tokens: int | None) -> None:
        self.url = url
        self.name = name
        self.context_tokens = context_tokens

    def stream(self, messages: Sequence[Message], sampling: Sampling, tally: Tally) -> Iterator[str]:
        settings = _settings(sampling, self.url)
        kept = list(messages)
        while True:
            try:
                yield from self._answer(kept, settings, tally)
                return
            except _TooLongError:
                shorter = without_oldest_exchange(kept)
                if shorter is None:
                    raise
                log.warning("the conversation is longer than the model's context: its oldest messages are left out")
                kept = shorter

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return None

    def others(self) -> list[str]:
        return list(_list_models(self.url))

    def _answer(self, messages: Sequence[Message], settings: Mapping[str, float], tally: Tally) -> Iterator[str]:
        body = {
            "model": self.name,
            "messages": [dict(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **settings,
        }
        with _client(self.url) as client, client.stream("POST", "/chat/completions", json=body) as response:
            if response.status_code != 200:
                response.read()
                raise _refusal(self.url, response)
            yield from _pieces(self.url, _events(response.iter_bytes()), tally)


class _TooLongError(ModelError):
    """The conversation does not fit into the model's context."""


def _settings(sampling: Sampling, url: str) -> dict[str, float | int]:
    """Sampling in the API's words; what it has no word for is refused, not left out."""
    unknown = {
        "top_k": (sampling.top_k, 0),
        "repetition_penalty": (sampling.repetition_penalty, 1.0),
    }
    problems = [
        f"{name}={value}: the API at {url} has no such setting; leave it at {neutral:g}"
        for name, (value, neutral) in unknown.items()
        if value != neutral
    ]
    if problems:
        raise ConfigError(problems)
    known: dict[str, float | int] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
    }
    return known if sampling.seed is None else {**known, "seed": sampling.seed}


def _events(chunks: Iterator[bytes]) -> Iterator[bytes]:
    stream = EventStream()
    for chunk in chunks:
        yield from stream.feed(chunk)
    yield from stream.end()


def _pieces(url: str, events: Iterator[bytes], tally: Tally) -> Iterator[str]:
    """Yield what the events of a stream add to the answer; ModelError where it does not come to its end."""
    for data in events:
        if data == DONE:
            return
        event = _parse(url, data)
        if "error" in event:
            raise ModelError(f"{url}: {_message(event)}")
        if usage := event.get("usage"):
            tally.prompt_tokens, tally.answer_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        for choice in event.get("choices") or []:
            if text := (choice.get("delta") or {}).get("content"):
                yield text
    raise ModelError(f"{url}: the connection ended in the middle of the answer; ask again")


def _list_models(url: str) -> dict[str, int | None]:
    """The names of a server's models, each with the length of its context where the server tells."""
    with _client(url) as client:
        response = client.get("/models")
    if response.status_code != 200:
        raise _refusal(url, response)
    listed: dict[str, int | None] = {}
    for model in _parse(url, response.content).get("data") or []:
        lengths = [model[field] for field in _CONTEXT_FIELDS if isinstance(model.get(field), int)]
        listed[str(model.get("id"))] = lengths[0] if lengths else None
    if not listed:
        raise ModelError(f"{url}/models lists no model; check the URL, and whether the server has loaded one")
    return listed


@contextmanager
def _client(url: str) -> Iterator[httpx.Client]:
    """A client for one request; what goes wrong on the way becomes a ModelError."""
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout) as client:
            yield client
    except httpx.ConnectError as exc:
        raise ModelError(
            f"{url}: nobody answers there ({exc}); check the URL, and whether the server runs (`scaletrain serve`)"
        ) from exc
    except httpx.TimeoutException as exc:
        raise ModelError(f"{url}: no answer within {_SILENCE_TIMEOUT_S:g} seconds; the server may be busy") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ModelError(f"{url}: the connection failed ({exc or type(exc).__name__}); ask again") from exc


def _refusal(url: str, response: httpx.Response) -> ModelError:
    """What a server says instead of an answer, and what to do about it."""
    kind = ModelError
    try:
        event = orjson.loads(response.content)
        said = _message(event)
        if isinstance(event, dict) and isinstance(event.get("error"), dict) and event["error"].get("code") == _TOO_LONG:
            kind = _TooLongError
    except orjson.JSONDecodeError:
        said = response.text.strip()[:200] or response.reason_phrase
    advice = {
        401: f"; set {KEY_VARIABLE} to a key of this server",
        403: f"; set {KEY_VARIABLE} to a key that may do this",
        404: "; check the URL: it usually ends with /v1",
        429: f"; try again{_later(response.headers)}",
        503: f"; try again{_later(response.headers)}",
    }.get(response.status_code, "")
    return kind(f"{url} answers {response.status_code}: {said.rstrip('.')}{advice}")


def _later(headers: Mapping[str, str]) -> str:
    seconds = headers.get("retry-after", "")
    return f" in {seconds} seconds" if seconds.isdecimal() else " later"


def _message(event: Any) -> str:
    """The words of an error in OpenAI's shape, or of something like it."""
    error = event.get("error", event) if isinstance(event, dict) else event
    found = error.get("message") if isinstance(error, dict) else error
    return str(found or error)


def _parse(url: str, text: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise ModelError(f"{url} is no OpenAI-compatible API: it answers {_beginning(text)}; check the URL") from exc
    if not isinstance(parsed, dict):
        raise ModelError(f"{url} is no OpenAI-compatible API: it answers {_beginning(text)}; check the URL")
    return parsed


def _beginning(text: bytes) -> str:
    return repr(text[:80].decode(errors="replace"))


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--url={url}: give the URL of an API, as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ConfigError(f"--url: keep the key out of the URL; set {KEY_VARIABLE}")
    is_here = parts.hostname in ("localhost", "::1") or parts.hostname.startswith("127.")
    if parts.scheme == "http" and not is_here and os.environ.get(KEY_VARIABLE):
        log.warning("%s is not encrypted: the key and the conversation can be read on the way; use https", url)


def _named(names: Mapping[str, object]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(list(names)[:_NAMES_SHOWN]) + more

"""Errors of the HTTP API in the shape that OpenAI's clients know, so that they raise, report and retry as they should.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

The official client repeats a request after 408, 409, 429 and 5xx, and waits for as long as Retry-After says.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scaletrain.errors import EngineFailedError, ModelError, OverloadedError

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_RETRY_OVERLOADED_S = 1.0
_RETRY_FAILED_S = 1.0
_RETRY_DRAINING_S = 5.0


class ApiError(Exception):
    """What a client is told: a status, a sentence, the parameter it is about, and a code that programs look at."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """The JSON of the answer, or of the last event of a stream that failed."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> Mapping[str, str]:
        """Headers that belong to this error."""
        headers = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        elif self.status == 429:
            headers["x-should-retry"] = "false"  # it will never fit; the official client looks at this
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def invalid(problems: Sequence[tuple[str, str]]) -> ApiError:
    """All that is wrong with a request's parameters, as (parameter, problem)."""
    lines = [f"{param}: {problem}" if param else problem for param, problem in problems]
    message = lines[0] if len(lines) == 1 else f"{len(lines)} problems: " + "; ".join(lines)
    return ApiError(400, message, param=problems[0][0] or None, code="invalid_value")


def too_long(prompt_tokens: int, context_tokens: int, *, param: str) -> ApiError:
    """A prompt that leaves no room for an answer."""
    return ApiError(
        400,
        f"the prompt has {prompt_tokens} tokens, and the model's context of {context_tokens} has no room for an answer "
        "behind it; shorten it, or leave out the oldest messages",
        param=param,
        code="context_length_exceeded",
    )


def unknown_model(name: str, known: Sequence[str]) -> ApiError:
    return ApiError(
        404,
        f"there is no model {name[:200]!r} here; there is {', '.join(known)}",
        param="model",
        code="model_not_found",
    )


def draining() -> ApiError:
    return ApiError(
        503, "the server is shutting down; ask again", code="shutting_down", retry_after_s=_RETRY_DRAINING_S
    )


def timed_out(timeout_s: float) -> ApiError:
    return ApiError(
        504,
        f"the answer was not done within {timeout_s:g} s, and has been stopped; ask for fewer tokens with max_tokens",
        code="timeout",
    )


def from_engine(error: Exception) -> ApiError:
    """What an engine's error means to a client: too many requests, one it cannot take, or a failure that may pass."""
    if isinstance(error, OverloadedError):
        return ApiError(429, str(error), code="overloaded", retry_after_s=_RETRY_OVERLOADED_S)
    if isinstance(error, ModelError) and not isinstance(error, EngineFailedError):
        return ApiError(400, str(error), code="invalid_value")
    return ApiError(
        503,
        f"the model failed while it answered ({error}); ask again",
        code="engine_failed",
        retry_after_s=_RETRY_FAILED_S,
    )

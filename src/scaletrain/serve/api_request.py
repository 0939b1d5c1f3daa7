"""What a client asks for: the JSON of a request becomes a Generation, or one error that names everything wrong in it.

Of the OpenAI API's parameters some are honoured, some change nothing and are taken (user, metadata ...), and some would
change the answer in ways we cannot: those are refused, unless their value asks for nothing.
https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scaletrain.serve.api_errors import ApiError, invalid
from scaletrain.serve.protocol import Sampled

_COMPLETION_TOKENS = 16  # what OpenAI's completions have where max_tokens is not given
_SMALLEST_TOP_P = 1e-9  # OpenAI's clients may ask for 0: the likeliest token alone
_MAX_STOPS = 4
_SHOWN = 60

# Taken and without effect here.
_HARMLESS = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "user",
)
# Would change the answer; the values behind them ask for nothing.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# What pydantic calls the kinds of mistakes, in words that say what to do.
_REMEDIES = {
    "greater_than_equal": "use {ge} or more",
    "less_than_equal": "use {le} or less",
    "string_type": "give text",
    "bool_type": "give true or false",
    "int_type": "give a whole number",
    "float_type": "give a number",
    "list_type": "give a list",
    "model_type": "give an object",
    "literal_error": "use {expected}",
    "finite_number": "give a number",
}


@dataclass(frozen=True)
class Generation:
    """A request that makes sense.

    `messages` of a chat, or `prompts` of a completion: texts, or token ids as they are. `max_tokens` None: as many as
    fit. `choices` answers to each prompt.
    """

    model: str | None
    messages: Sequence[Mapping[str, str]]
    prompts: Sequence[str | list[int]]
    choices: int
    stream: bool
    include_usage: bool
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    presence_penalty: float
    frequency_penalty: float
    logprobs: int | None

    @property
    def is_chat(self) -> bool:
        return bool(self.messages)

    def sampled(self, *, room: int, choice: int) -> Sampled:
        """How one choice is sampled, with at most `room` tokens; each choice has a seed of its own."""
        return Sampled(
            max_tokens=room if self.max_tokens is None else min(self.max_tokens, room),
            temperature=self.temperature,
            top_p=max(self.top_p, _SMALLEST_TOP_P),
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
            stop=self.stop,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logprobs=self.logprobs,
        )


def parse_chat(body: bytes, *, max_choices: int) -> Generation:
    """Read the body of a chat request; raises ApiError that names every problem."""
    request = _validated(_ChatBody, body, max_choices)
    return _generation(
        request,
        messages=[message.plain() for message in request.messages],
        max_tokens=request.max_completion_tokens or request.max_tokens,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def parse_completion(body: bytes, *, max_choices: int) -> Generation:
    """Read the body of a completion request; raises ApiError that names every problem."""
    request = _validated(_CompletionBody, body, max_choices)
    return _generation(
        request,
        prompts=request.prompts(),
        max_tokens=request.max_tokens or _COMPLETION_TOKENS,
        logprobs=request.logprobs,
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises ApiError."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ApiError(400, f"the body is not valid JSON: {exc}", code="invalid_json") from exc
    if not isinstance(tree, dict):
        raise ApiError(400, "the body has to be a JSON object", code="invalid_json")
    return tree


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Part(_Body):
    type: Literal["text"]
    text: str


class _Message(_Body):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    tool_calls: list[Any] = Field([], max_length=0)

    def plain(self) -> dict[str, str]:
        """Role and text alone; a developer's message is what a system message is for models like ours."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class _StreamOptions(_Body):
    include_usage: bool = False
    include_obfuscation: bool = False


_Penalty = Annotated[float, Field(ge=-2, le=2)]
_StopText = Annotated[str, Field(min_length=1, max_length=500)]
_TokenCount = Annotated[int, Field(ge=1, le=2**31)]


class _Sampling(_Body):
    model: str | None = None
    n: Annotated[int, Field(ge=1)] = 1
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: _TokenCount | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: _StopText | Annotated[list[_StopText], Field(max_length=_MAX_STOPS)] = []
    presence_penalty: _Penalty = 0.0
    frequency_penalty: _Penalty = 0.0

    def problems(self, max_choices: int) -> Iterator[tuple[str, str]]:
        if self.n > max_choices:
            yield "n", f"got {self.n}; this server makes at most {max_choices} choices a request"
        if self.stream_options is not None and not self.stream:
            yield "stream_options", "goes with stream: true; remove it"


class _ChatBody(_Sampling):
    messages: Annotated[list[_Message], Field(min_length=1)]
    max_completion_tokens: _TokenCount | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def problems(self, max_choices: int) -> Iterator[tuple[str, str]]:
        yield from super().problems(max_choices)
        if self.top_logprobs is not None and not self.logprobs:
            yield "top_logprobs", "goes with logprobs: true; remove it, or set that"
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            yield "max_tokens", "differs from max_completion_tokens; give one of the two"


class _CompletionBody(_Sampling):
    prompt: str | list[str] | list[Annotated[int, Field(ge=0)]] | list[list[Annotated[int, Field(ge=0)]]]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    def prompts(self) -> list[str | list[int]]:
        """Each prompt for itself."""
        prompt: Any = self.prompt
        is_one = isinstance(prompt, str) or (prompt and isinstance(prompt[0], int))
        return [prompt] if is_one else list(prompt)

    def problems(self, max_choices: int) -> Iterator[tuple[str, str]]:
        yield from super().problems(max_choices)
        prompts = self.prompts()
        if not prompts or not all(prompts):
            yield "prompt", "is empty; give text or tokens"
        if len(prompts) * self.n > max_choices:
            yield "prompt", f"{len(prompts)} prompts with n={self.n}: this server makes at most {max_choices} choices"


_Kind = TypeVar("_Kind", bound=_Sampling)


def _validated(kind: type[_Kind], body: bytes, max_choices: int) -> _Kind:
    tree = {key: value for key, value in parse_object(body).items() if value is not None and key not in _HARMLESS}
    problems = [
        (key, f"{key} is not supported by this server; remove it")
        for key, neutral in _REFUSED.items()
        if key in tree and tree.pop(key) not in neutral
    ]
    try:
        request = kind.model_validate(tree)
    except ValidationError as exc:
        raise invalid([*problems, *_problems(exc)]) from exc
    problems += request.problems(max_choices)
    if problems:
        raise invalid(problems)
    return request


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    """One (parameter, problem) for each field that is wrong."""
    found: dict[str, str] = {}
    for each in error.errors(include_url=False):
        path = _dotted(each["loc"])
        got = repr(each["input"])
        shown = got if len(got) <= _SHOWN else f"{got[:_SHOWN]}..."
        if each["type"] == "missing":
            problem = "is missing"
        elif each["type"] == "extra_forbidden":
            problem = "this server knows no such parameter; remove it"
        elif path.endswith("tool_calls"):
            problem = "tools are not supported by this server"
        else:
            remedy = _REMEDIES.get(each["type"])
            problem = f"got {shown}; {remedy.format(**each.get('ctx', {})) if remedy else each['msg']}"
        found[path] = f"{found[path]}, or {problem.partition('; ')[2] or problem}" if path in found else problem
    # Where one branch of a union fails inside, that is what is wrong, and not that it is no other branch.
    return [(path, each) for path, each in found.items() if not any(other.startswith(f"{path}.") for other in found)]


def _dotted(location: Sequence[int | str]) -> str:
    """A parameter's path, without pydantic's names for the branches of a union."""
    parts = [str(part) for part in location if isinstance(part, int) or part.isidentifier()]
    return ".".join(part for part in parts if part not in ("str", "int"))


def _generation(
    request: _Sampling,
    *,
    messages: Sequence[Mapping[str, str]] = (),
    prompts: Sequence[str | list[int]] = (),
    max_tokens: int | None,
    logprobs: int | None,
) -> Generation:
    return Generation(
        model=request.model,
        messages=messages,
        prompts=prompts,
        choices=request.n,
        stream=request.stream,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop),
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logprobs=logprobs,
    )

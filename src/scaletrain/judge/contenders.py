"""Models to compare, as they are named on the command line: MODEL, or NAME=MODEL."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaletrain.errors import ConfigError


@dataclass(frozen=True)
class Contender:
    """A model to judge: what its answers go by in the results, and what it is."""

    name: str
    model: str


def contenders(named: Sequence[str]) -> tuple[Contender, ...]:
    """The models; ConfigError lists those that cannot be told apart or are no models."""
    found = []
    for each in named:
        name, equals, model = each.partition("=")
        if not equals or "/" in name:  # an address may have a = of its own
            name, model = each, each
        found.append(Contender(name.strip(), model.strip()))
    problems = [] if len(found) > 1 else ["give two or more models to compare, as base=MODEL trained=RUN"]
    problems += [
        f"{each!r}: both the name and the model are needed"
        for each, contender in zip(named, found, strict=True)
        if not contender.name or not contender.model
    ]
    names = [each.name for each in found]
    problems += [
        f"{name}: is there twice; name them apart, as a={name} b={name}"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    problems += [
        f"{each.model}: say which model of the server, as https://host/v1#MODEL"
        for each in found
        if is_remote(each.model) and not server_and_model(each.model)[1]
    ]
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def is_remote(model: str) -> bool:
    """Whether a model is named by the address of an OpenAI-compatible server, as https://host/v1#MODEL."""
    return model.startswith(("http://", "https://"))


def server_and_model(address: str) -> tuple[str, str]:
    """The URL to send conversations to, and what the model is called there."""
    url, _, model = address.partition("#")
    return f"{url.rstrip('/')}/chat/completions", model

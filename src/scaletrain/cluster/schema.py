"""What Ray's own schema says of a cluster file: every breach with its place, and what was probably meant."""

import difflib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaletrain.errors import ClusterError

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

# The schema lets `provider` have any key, and Ray passes over those that it does not know.
_PROVIDER_KEYS = {
    "aws": {"availability_zone", "aws_credentials", "cache_stopped_nodes", "cloudwatch", "key_pair", "security_group"}
    | {"use_internal_ips", "use_external_head_ip"},
    "gcp": {"availability_zone", "cache_stopped_nodes", "gcp_credentials", "project_id", "use_internal_ips"}
    | {"use_external_head_ip"},
    "local": {"head_ip", "worker_ips", "external_head_ip", "coordinator_address", "use_internal_ips"},
}


def schema_problems(tree: Mapping[str, Any]) -> list[str]:
    """Return a line for each way in which a cluster file breaks Ray's schema, or names what Ray would pass over."""
    from jsonschema import Draft7Validator

    problems = sorted(line for error in Draft7Validator(_schema()).iter_errors(tree) for line in _lines(error))
    if not problems:
        problems = [*_provider_problems(tree["provider"]), *_rule_problems(tree)]
    return problems


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return "did you mean X?", or what there is to choose from where nothing is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def _schema() -> dict[str, Any]:
    """Ray's schema, read without importing Ray, which takes a second."""
    spec = importlib.util.find_spec("ray")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / "autoscaler/ray-schema.json"
        if path.is_file():
            schema: dict[str, Any] = json.loads(path.read_text())
            return schema
    raise ClusterError("ray has no autoscaler/ray-schema.json here; reinstall it: pip install 'ray[default]'")


def _lines(error: "ValidationError") -> Iterator[str]:
    place = ".".join(str(part) for part in error.absolute_path) or "the file"
    schema: Any = error.schema
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(schema.get("properties", {}))
        for key in [key for key in error.instance if key not in known]:
            name = key if place == "the file" else f"{place}.{key}"
            yield f"{name}: Ray knows no such key; {did_you_mean(str(key), known)}"
    elif error.validator == "required" and isinstance(error.instance, dict):
        for key in schema["required"]:
            if key not in error.instance:
                yield f"{place}: {key} is missing; add it"
    elif error.validator == "type":
        yield f"{place}: got {_shown(error.instance)}; give a value of type {schema['type']}"
    else:
        yield f"{place}: {error.message}; correct it"


def _provider_problems(provider: Mapping[str, Any]) -> Iterator[str]:
    kind = provider["type"]
    if kind not in _PROVIDER_KEYS:
        yield f"provider.type: got {kind}; scaletrain knows {', '.join(_PROVIDER_KEYS)}"
        return
    known = sorted({"type", "region", "module", "tags", *_PROVIDER_KEYS[kind]})
    for key in provider:
        if key not in known:
            yield f"provider.{key}: Ray would pass over it; {did_you_mean(str(key), known)}"


def _rule_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Ray's rules between keys, which it checks one at a time."""
    if tree["provider"]["type"] == "local":
        if "available_node_types" in tree:
            yield "available_node_types: machines of your own have no types; remove it"
        return
    types = tree.get("available_node_types")
    if not types:
        yield "available_node_types: missing; Ray would start machines of its own choice"
        return
    head = tree.get("head_node_type")
    if head not in types:
        yield f"head_node_type: got {head}; name one of {', '.join(types)}"
    least = sum(kind.get("min_workers", 0) for kind in types.values())
    if "max_workers" not in tree:
        yield "max_workers: missing; Ray would take 2"
    elif least > tree["max_workers"]:
        yield f"max_workers: got {tree['max_workers']}, but the min_workers of all types are {least}; raise it"
    for name, kind in types.items():
        most = kind.get("max_workers", tree.get("max_workers", 0))
        if name != head and kind.get("min_workers", 0) > most:
            yield f"available_node_types.{name}: min_workers={kind['min_workers']} is over max_workers={most}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."

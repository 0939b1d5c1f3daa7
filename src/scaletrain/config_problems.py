"""From a tree of plain values to a Config, or to every problem at once: its path, what was got and what to do.

A section's rules between fields can only be checked when its fields are right. So a tree with mistakes is checked a
second time with the mistakes taken out (a misspelt key renamed, a bad value left to its default), and the second check
adds what the first could not see; a rule about a field whose value was taken out is not reported.
"""

import copy
import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from scaletrain.config import Config
from scaletrain.config_section import BrokenRulesError, Section
from scaletrain.errors import ConfigError

FieldPath = tuple[str | int, ...]


def validated(tree: dict[str, Any], *, problems: Sequence[str] = ()) -> Config:
    """Return the configuration that a tree describes; raises ConfigError with these problems and all found here."""
    config, errors = _check(tree)
    if config is not None and not problems:
        return config
    found = list(problems)
    corrections = _Corrections(copy.deepcopy(tree))
    for error in errors:
        if error["type"] != "missing" and not _broken_rules(error):
            found.append(_problem(error))
            corrections.take_out(error)
    if corrections.removed:
        errors = _check(corrections.tree)[1]
    for error in errors:
        if _broken_rules(error):
            found += corrections.rule_problems(error)
        elif corrections.reveals(error):
            found.append(_problem(error))
    raise ConfigError(list(dict.fromkeys(found)))


def _check(tree: dict[str, Any]) -> tuple[Config | None, list[ErrorDetails]]:
    try:
        return Config.model_validate(tree), []
    except ValidationError as error:
        return None, [each for each in error.errors(include_url=False) if not _follows_from_another(each)]


def _follows_from_another(error: ErrorDetails) -> bool:
    """Pydantic calls a list too short when its only entries are wrong, and makes no default beside a wrong field."""
    return (error["type"] == "too_short" and bool(error["input"])) or error["type"] == "default_factory_not_called"


def _broken_rules(error: ErrorDetails) -> tuple[tuple[str, str], ...]:
    cause = error.get("ctx", {}).get("error")
    return cause.broken if isinstance(cause, BrokenRulesError) else ()


@dataclass
class _Corrections:
    """A tree whose mistakes are taken out one by one, and what was done to it."""

    tree: dict[str, Any]
    removed: set[FieldPath] = field(default_factory=set)
    renamed: set[FieldPath] = field(default_factory=set)

    def take_out(self, error: ErrorDetails) -> None:
        path = _path(error)
        while path and not isinstance(_value_at(self.tree, path[:-1]), dict):
            path = path[:-1]  # out of a list, whose other entries must keep their numbers
        parent = _value_at(self.tree, path[:-1])
        if not path or path[-1] not in parent:
            return
        value = parent.pop(path[-1])
        self.removed.add(path)
        if error["type"] != "extra_forbidden":
            return
        suggestions = _suggestions(path)
        target_parent = _value_at(self.tree, suggestions[0][:-1]) if len(suggestions) == 1 else None
        if isinstance(target_parent, dict) and suggestions[0][-1] not in target_parent:
            target_parent[suggestions[0][-1]] = value
            self.renamed.add(suggestions[0])
        else:
            self.removed.update(suggestions)  # the user meant one of them: no complaint that it is missing

    def reveals(self, error: ErrorDetails) -> bool:
        """Say whether an error of the second check is a mistake of the user's, seen only now."""
        path = _path(error)
        if error["type"] == "missing":
            return not any(path[: len(each)] == each for each in self.removed)
        return any(path[: len(each)] == each for each in self.renamed)

    def rule_problems(self, error: ErrorDetails) -> Iterator[str]:
        section = _path(error)
        taken = {str(path[-1]) for path in self.removed if path[: len(section)] == section}
        for name, message in _broken_rules(error):
            if not taken & set(re.findall(r"\w+", f"{name} {message}")):
                yield f"{_dotted((*section, *name.split('.')))}: {message}"


def _problem(error: ErrorDetails) -> str:
    """Say in one line what is wrong with a field and what to do."""
    path = _path(error)
    if error["type"] == "extra_forbidden":
        return f"{_dotted(path)}: unknown key; {_advice_for_unknown(path)}"
    if error["type"] == "missing":
        return f"{_dotted(path)}: missing; give {_description(path) or 'a value'}"
    return f"{_dotted(path)}: got {_shown(error['input'])}; {_remedy(error, path)}"


def _remedy(error: ErrorDetails, path: FieldPath) -> str:
    kind, limits = error["type"], error.get("ctx", {})
    description = _description(path)
    if kind == "value_error":
        return str(limits["error"])
    if kind == "literal_error":
        return "give " + str(limits["expected"]).replace("'", "")
    fixed = {
        "greater_than_equal": f"give at least {limits.get('ge')}",
        "greater_than": f"give more than {limits.get('gt')}",
        "less_than_equal": f"give at most {limits.get('le')}",
        "less_than": f"give less than {limits.get('lt')}",
        "finite_number": "give a finite number",
        "string_type": "give text; in quotes, if it looks like a number",
        "string_too_short": f"give {description or 'some text'}",
        "string_pattern_mismatch": f"give {description or 'another text'}",
        "too_short": f"give {description or 'at least one entry'}",
        "too_long": f"give {limits.get('max_length')} entries",
        "tuple_type": f"give {description or 'a list'}, as [a, b]",
        "dict_type": "give key: value pairs, as {a: 1}",
        "model_type": f"give key: value pairs; known keys are {', '.join(_known_keys(path))}",
    }
    if kind in fixed:
        return fixed[kind]
    for beginning, remedy in (("int_", "a whole number"), ("float_", "a number"), ("bool_", "true or false")):
        if kind.startswith(beginning):
            return f"give {remedy}"
    return f"give another value ({error['msg'].lower()})"


def _advice_for_unknown(path: FieldPath) -> str:
    suggestions = _suggestions(path)
    if suggestions:
        return f"did you mean {' or '.join(_dotted(each) for each in suggestions)}?"
    return f"remove it; known here are {', '.join(_known_keys(path[:-1]))}"


def _suggestions(path: FieldPath) -> list[FieldPath]:
    """Return where a misspelt or misplaced key may belong: in its own section, else elsewhere; the best first."""
    *parents, name = path
    here = difflib.get_close_matches(str(name), _known_keys(tuple(parents)), n=2)
    exact = [each for each in _all_paths(Config, ()) if each[-1] == name]
    if exact:
        return exact[:2]
    if here:
        alike = [difflib.SequenceMatcher(None, str(name), each).ratio() for each in here]
        return [(*parents, each) for each, ratio in zip(here, alike, strict=True) if ratio > alike[0] - 0.1]
    names = {str(each[-1]): each for each in _all_paths(Config, ())}
    return [names[each] for each in difflib.get_close_matches(str(name), names, n=1, cutoff=0.8)]


def _all_paths(section: type[Section], prefix: FieldPath) -> Iterator[FieldPath]:
    """Yield the path of every field; of a list of sections, those of its first entry."""
    for name, info in section.model_fields.items():
        yield (*prefix, name)
        inner = _section_in(info.annotation)
        if inner is not None:
            entry = (0,) if get_origin(info.annotation) is tuple else ()
            yield from _all_paths(inner, (*prefix, name, *entry))


def _known_keys(path: FieldPath) -> list[str]:
    section = _section_at(path)
    return list(section.model_fields) if section else []


def _section_at(path: FieldPath) -> type[Section] | None:
    section: type[Section] | None = Config
    parts = iter(path)
    for part in parts:
        if section is None or isinstance(part, int):
            continue
        info = section.model_fields.get(part)
        section = _section_in(info.annotation) if info else None
        if info is not None and get_origin(info.annotation) is dict:
            next(parts, None)  # the user's own name for one of the sections
    return section


def _section_in(annotation: Any) -> type[Section] | None:
    """Return the section that a type holds, as LoraSection in `LoraSection | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for each in get_args(annotation) if (found := _section_in(each))), None)


def _description(path: FieldPath) -> str:
    parent, name = _section_at(path[:-1]), path[-1]
    info = parent.model_fields.get(str(name)) if parent else None
    return (info.description or "") if info else ""


def _path(error: ErrorDetails) -> FieldPath:
    """Return where an error is, without the marks that pydantic adds for the branches of a union and for keys."""
    return tuple(part for part in error["loc"] if not str(part).startswith(("<", "[")))


def _value_at(tree: Any, path: FieldPath) -> Any:
    for part in path:
        if isinstance(tree, dict):
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
        else:
            return None
    return tree


def _dotted(path: FieldPath) -> str:
    return ".".join(str(part) for part in path)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "key: value pairs"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f".{value}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

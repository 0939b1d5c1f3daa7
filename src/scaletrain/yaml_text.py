"""YAML as people expect it: the types of YAML 1.2, mistakes with their line, and text that is read back as it was.

PyYAML reads YAML 1.1, where 3e-4 is text, `no` and `on` are booleans, 010 is eight and 12:30 is 750. Here 3e-4 is a
number, only true and false are booleans, 010 is ten, and times and dates are text (https://yaml.org/spec/1.2.2/#103).
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from scaletrain.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_CORE_TYPES = {  # for each: what it looks like, and the characters that it can begin with
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}


def parse(text: str, *, source: str) -> tuple[Any, list[str]]:
    """Return a document's value (None where it is empty), and a line for each key given twice or without a value.

    Raises ConfigError with `source`, the line and the column where the text is no YAML.
    """
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_problem(error, source)) from error
    return value, [f"{source}:{line}: {problem}" for line, problem in loader.problems]


def parse_value(text: str, *, source: str) -> Any:
    """Return the value of one scalar, list or mapping in a single line, as [1, 2] or {min: 1, max: 2}.

    Outside brackets and quotes every character stands for itself, also `*`, `#` and `: `.
    """
    text = text.strip()
    if text[:1] in ("[", "{", '"', "'"):
        value, problems = parse(text, source=source)
        if problems:
            raise ConfigError(problems)
        return value
    loader = _Loader("")
    return loader.construct_object(yaml.ScalarNode(_core_tag(text), text))


def dump(value: Any) -> str:
    """Return YAML that `parse` reads back as the same value, and that a YAML 1.1 reader does not misread either."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
    return str(text)


def dump_value(value: Any) -> str:
    """Return one value in a single line, as it could stand in an override."""
    text = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, width=float("inf"), default_flow_style=True)
    return str(text).removesuffix("\n").removesuffix("\n...")


class _Loader(yaml.SafeLoader):
    """Reads the core types of YAML 1.2; keys are text, and each is given once."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[tuple[int, str]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in (_TAG + "str", _TAG + "merge"):
                raise yaml.constructor.ConstructorError(None, None, "a key that is not text", key_node.start_mark)
            key = key_node.value
            if key in seen:
                self.problems.append((line, f"{key} is given twice, first in line {seen[key]}; remove one of them"))
            if isinstance(value_node, yaml.ScalarNode) and value_node.tag == _TAG + "null" and not value_node.value:
                self.problems.append((line, f"{key} has no value; give one, or remove the line (null is the default)"))
            seen.setdefault(key, line)
        return super().construct_mapping(node, deep)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


for _name, (_pattern, _first) in _CORE_TYPES.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_TAG + "int", _construct_int)
_Loader.add_constructor(_TAG + "float", _construct_float)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either version of YAML would take for something else."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        quote = None if _core_tag(data) == _TAG + "str" else "'"
        if re.search("[\x85\u2028\u2029\ufeff]", data):  # PyYAML loses these line ends, unless escaped
            quote = '"'
        return self.represent_scalar(_TAG + "str", data, style=quote)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, _Dumper.represent_str)


def _core_tag(text: str) -> str:
    """Return the type that YAML 1.2 gives a plain scalar."""
    matching = (name for name, (pattern, _) in _CORE_TYPES.items() if re.fullmatch(pattern, text))
    return _TAG + next((name for name in matching if name != "merge"), "str")


def _syntax_problem(error: yaml.YAMLError, source: str) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if "'\\t'" in problem:
        return f"{place}: a tab; indent with spaces"
    if "mapping values are not allowed" in problem:
        return f"{place}: a colon too many; put text that has ': ' in it in quotes"
    if "cannot start any token" in problem or "undefined alias" in problem or "unknown escape" in problem:
        return f"{place}: {problem}; put the text in quotes"
    if "another document" in problem:
        return f"{place}: a second document begins; keep one"
    if "<document start>" in problem:
        return f"{place}: something stands behind the end of the document; give one YAML file (rows of data are none)"
    if "constructor for the tag" in problem:
        return f"{place}: a tag (!...) that is not allowed; write plain values"
    if "not text" in problem:
        return f"{place}: {problem}; put it in quotes"
    return f"{place}: {problem}; check brackets, quotes and indentation"

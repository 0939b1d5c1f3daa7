"""The named places of a cluster file: lines marked `# init: NAME`, which are filled in place, comments and all.

Everything else in the file belongs to its user and stays as it is, byte for byte.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from scaletrain import yaml_text
from scaletrain.cluster.cluster_file import UNFILLED
from scaletrain.errors import ConfigError

# What stands before the value, the value, and the mark; a suffix is put behind a place's value, as project/src.
_MARKED = re.compile(
    r"""^(?P<before> \s* (?:-\ )? (?:[^\s\#'"\[] [^\#]*? :\ +)? )
        (?P<value> \S.*? )
        (?P<mark> \s+ \#\ init:\ (?P<name>\w+) (?P<suffix>/\S+)? )$""",
    re.VERBOSE,
)


def find_places(text: str) -> dict[str, str]:
    """Return each place of a file by name (with its suffix) and what stands there now, as it is written."""
    matches = (_MARKED.match(line) for line in text.splitlines())
    return {match["name"] + (match["suffix"] or ""): match["value"] for match in matches if match}


def fill_places(text: str, values: Mapping[str, str | list[str]], *, source: str) -> str:
    """Return the text with every marked line filled; a place without a value keeps what it has.

    Raises ConfigError for each value that has no place, since the file would not say what was meant.
    """
    there = {name.partition("/")[0] for name in find_places(text)}
    if missing := sorted(set(values) - there):
        raise ConfigError([f"{source}: has no line that ends with `# init: {name}`; add it" for name in missing])
    return "".join(_filled(line, values) for line in text.splitlines(keepends=True))


def rewrite(path: Path, values: Mapping[str, str | list[str]]) -> bool:
    """Fill a file's places on disk; return whether that changed anything. Its mode stays."""
    old = path.read_text(encoding="utf-8")
    new = fill_places(old, values, source=str(path))
    if new == old:
        return False
    path.write_text(new, encoding="utf-8")
    return True


def _filled(line: str, values: Mapping[str, str | list[str]]) -> str:
    body = line.rstrip("\r\n")
    match = _MARKED.match(body)
    if match is None or match["name"] not in values:
        return line
    value = values[match["name"]]
    suffix = "" if str(value).startswith(UNFILLED) else match["suffix"] or ""
    written = yaml_text.dump_value(value + suffix if isinstance(value, str) else [each + suffix for each in value])
    return f"{match['before']}{written}{match['mark']}{line[len(body) :]}"

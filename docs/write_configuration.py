"""Writes docs/configuration.md from the configuration's own fields: `.venv/bin/python docs/write_configuration.py`.

A test holds the page equal to what this writes.
"""

from pathlib import Path
from typing import Any

from scaletrain.config import Config

PAGE = Path(__file__).with_name("configuration.md")
_BOUNDS = {
    "≥": ("ge", "minimum"),
    ">": ("gt", "exclusiveMinimum"),
    "≤": ("le", "maximum"),
    "<": ("lt", "exclusiveMaximum"),
}
_ANY = 1e9  # a bound as high as this is there for the machine, not for the reader
_INTRODUCTION = """\
# Configuration

One YAML file describes a run. Defaults come first, then the file, then `section.key=value` on the command line:

    scaletrain train run.yaml train.steps=500 scaling.workers=4

An unknown key or a wrong value is an error, and all of them are reported at once. `scaletrain config run.yaml` prints
the result. The file is kept as `runs/<name>/config.yaml` before the first step. From then on a change that would alter
the mathematics of the run is refused; the number of workers, `zero`, the micro batch and where things are stored may
change at any time.

This page is made from the code by `docs/write_configuration.py`. A field without a default must be given.
"""


def reference() -> str:
    """The whole page."""
    schema = Config.model_json_schema()
    sections = schema["$defs"]
    own = {name: field for name, field in schema["properties"].items() if _section(field) is None}
    parts = [_INTRODUCTION, _table("The run itself", "", own, schema.get("required", []))]
    for name, field in schema["properties"].items():
        if _section(field) is not None:
            parts += _section_tables(name, sections[_section(field)], sections)
    return "\n".join(parts)


def _section_tables(path: str, section: dict[str, Any], sections: dict[str, Any]) -> list[str]:
    """The section's table, then those of the sections inside it."""
    tables = [_table(path, section["description"], section["properties"], section.get("required", []))]
    for name, field in section["properties"].items():
        inner = _section(field)
        if inner is not None:
            tables += _section_tables(f"{path}.{name}", sections[inner], sections)
    return tables


def _section(field: dict[str, Any]) -> str | None:
    """The name of the section that a field holds, alone, optionally, in a list or under names of the user's own."""
    named = field.get("additionalProperties", {})
    for choice in (field, named, field.get("items", {}), *_choices(field), *_choices(field.get("items", {}))):
        if isinstance(choice, dict) and "$ref" in choice:
            return str(choice["$ref"].rpartition("/")[2])
    return None


def _table(title: str, introduction: str, fields: dict[str, Any], required: list[str]) -> str:
    rows = ["| Field | Values | Default | |", "|---|---|---|---|"]
    for name, field in fields.items():
        default = "" if name in required else _default(field)
        rows.append(f"| `{name}` | {_values(field)} | {default} | {field.get('description', '')} |")
    return "\n".join([f"## {title}", "", *([introduction, ""] if introduction else []), *rows, ""])


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        if _section(field) is not None:
            return "as below"
        return "empty" if field.get("type") == "object" else "up to 4"  # what micro_batch_size makes of its neighbour
    default = field["default"]
    if default is None:
        return "none"
    if isinstance(default, list):
        return ", ".join(f"`{value}`" for value in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _choices(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [choice for choice in field.get("anyOf", field.get("oneOf", [])) if choice.get("type") != "null"]


def _values(field: dict[str, Any]) -> str:
    if choices := _choices(field):
        return " or ".join(_values(choice) for choice in choices)
    if "$ref" in field:
        return "a section"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = {"array": "list", "boolean": "`true`, `false`", "object": "mapping", "string": "text"}
    limits = [f"{sign} {field[key]:g}" for sign, keys in _BOUNDS.items() for key in keys if field.get(key, _ANY) < _ANY]
    return " ".join([kind.get(field["type"], field["type"]), ", ".join(limits)]).strip()


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

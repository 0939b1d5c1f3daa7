"""Configurations as files: reading them with overrides, writing them, and comparing two for a resume.

Precedence: defaults < the file < `section.key=value`, one after the other. A null stands for the default.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from scaletrain import config_problems, storage, yaml_text
from scaletrain.config import Config
from scaletrain.errors import ConfigError, NotFoundError

# Fields that do not alter the mathematics of a run; every other one does.
_MAY_CHANGE = re.compile(
    r"(storage|zero|checkpoint|scaling|budget|evaluate|serve|track|debug)\..*"
    r"|train\.(micro_batch_size|device|evaluate_every_steps|evaluate_rows|timeout_s)"
    r"|model\.(attention|gradient_checkpointing|kernels)"
    r"|data\.reuse"
    r"|sweep(\..*)?"
)


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from a YAML file or URL and apply overrides; raises ConfigError with every problem."""
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except NotFoundError as error:
        raise ConfigError(f"{error}; it should be the YAML file of a run") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return parse_config(text, source=path, overrides=overrides)


def parse_config(text: str, *, source: str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from YAML; `source` is how messages call it."""
    tree, problems = yaml_text.parse(text, source=source)
    if tree is None:
        raise ConfigError(f"{source}: is empty; a run needs name, model, data and train")
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: has no keys; write lines as `name: my-run`, and sections model, data and train")
    for override in overrides:
        problems += _apply(override, tree)
    return config_problems.validated(_without_nulls(tree), problems=problems)


def dump_config(config: Config) -> str:
    """Return YAML with every field, which load_config reads back equal."""
    return yaml_text.dump(config.model_dump(mode="json"))


def changed_fields(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Return (dotted path, old value, new value) of each field that differs; an entry of a list has its index."""
    return list(_differences("", old.model_dump(mode="json"), new.model_dump(mode="json")))


def check_resume(stored: Config, current: Config) -> None:
    """Raise ConfigError that names each changed field that alters the mathematics of a run that has begun."""
    problems = []
    for path, old, new in changed_fields(stored, current):
        if _MAY_CHANGE.fullmatch(path):
            continue
        change = f"{path}: was {_value(old)}, is {_value(new)}"
        if path in ("train.steps", "train.epochs") and old is not None and new is not None:
            if stored.train.schedule != "constant":
                reason = f"the {stored.train.schedule} schedule sets every learning rate by the length"
            elif new > old:
                continue
            else:
                reason = "a run can grow, not shrink"
        else:
            reason = "that would change the mathematics of a run that has begun"
        problems.append(f"{change}; {reason}: set it back, or give the new run another name")
    if problems:
        raise ConfigError(problems)


def _apply(override: str, tree: dict[str, Any]) -> Iterator[str]:
    """Set one value of the tree, or yield why not."""
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        yield f"{override}: is no override; write section.key=value, as train.steps=100"
        return
    if not text.strip():
        yield f"{path}: has no value; write {path}=null for the default, or {path}='' for empty text"
        return
    try:
        value = yaml_text.parse_value(text, source=path)
    except ConfigError as error:
        yield from error.problems
        return
    node: Any = tree
    for depth, part in enumerate(parts):
        here = ".".join(parts[:depth])
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                yield f"{path}: {here} has {len(node)} entries, numbered from 0; there is no entry {part}"
                return
        elif not isinstance(node, dict):
            yield f"{path}: {here} is {_value(node)}, without keys; give it as a whole, as {here}={{{part}: ...}}"
            return
        key: Any = int(part) if isinstance(node, list) else part
        if depth == len(parts) - 1:
            node[key] = value
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]


def _without_nulls(tree: Any) -> Any:
    """Leave out the keys whose value is null, so that their defaults hold."""
    if isinstance(tree, dict):
        return {key: _without_nulls(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_without_nulls(value) for value in tree]
    return tree


def _differences(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(f"{path}.{key}" if path else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}.{index}", before, after)
    elif old != new:
        yield path, old, new


def _value(value: Any) -> str:
    """Show a value as one would write it."""
    text = yaml_text.dump_value(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

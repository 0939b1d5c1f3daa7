"""In which fields of their configurations runs differ."""

from collections.abc import Mapping, Sequence

from scaletrain import yaml_text

_NOT_SHOWN = ("name",)


def differences(configs: Sequence[Mapping[str, object]]) -> list[tuple[str, tuple[str, ...]]]:
    """Each dotted field that is not the same in all of them, with its value in each as one would write it."""
    names = dict.fromkeys(name for config in configs for name in config)
    found = []
    for name in names:
        values = tuple(_written(config, name) for config in configs)
        if len(set(values)) > 1 and name not in _NOT_SHOWN:
            found.append((name, values))
    return found


def _written(config: Mapping[str, object], name: str) -> str:
    if config.get(name) is None:
        return "–"
    return yaml_text.dump_value(config[name])

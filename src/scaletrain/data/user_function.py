"""Find a function that the user wrote, named in the configuration as my_package.module:function."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import xxhash

from scaletrain.errors import ConfigError


def load_function(name: str, *, setting: str) -> Callable[..., object]:
    """Import a function by name, from an installed package or from the working directory.

    Raises ConfigError that names `setting`.
    """
    module_name, _, function_name = name.partition(":")
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:  # as `python -m` has it, and a console script does not
        sys.path.append(working_directory)
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:
        raise ConfigError(
            f"{setting}: {name}: importing {module_name} failed ({type(exc).__name__}: {exc}); "
            f"install it, or run from the folder that holds it ({working_directory} was searched)"
        ) from exc
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"{setting}: {name}: {module_name} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def source_hash(name: str, *, setting: str) -> str:
    """Return a hash of the file that a user's function is written in, so that an edit makes another dataset."""
    file = inspect.getsourcefile(inspect.unwrap(load_function(name, setting=setting)))
    return xxhash.xxh3_128_hexdigest(Path(file).read_bytes()) if file else ""

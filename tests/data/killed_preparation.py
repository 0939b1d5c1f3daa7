"""A preparation that ends by SIGKILL, at a call of one of its functions."""

import importlib
import os
import signal
import tempfile
from typing import Any


def prepare_until(config_text: str, function: str, number: int, *, environment: dict[str, str], temporary: str) -> None:
    """Prepare in this process, and have it killed where a function, by its module and name, is called so many times.

    Temporary files go to the folder `temporary`.
    """
    os.environ.update(environment)
    tempfile.tempdir = temporary
    from scaletrain import storage
    from scaletrain.config_file import parse_config
    from scaletrain.data.prepare import prepare

    config = parse_config(config_text, source="test")
    storage.configure(config.storage.root, config.storage.options)
    _die_at(function, number)
    prepare(config, use_ray=False)


def _die_at(function: str, number: int) -> None:
    module_name, _, name = function.rpartition(".")
    module = importlib.import_module(module_name)
    original = getattr(module, name)
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(module, name, counted)

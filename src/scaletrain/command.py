"""What all commands share: how an error ends them, how results are printed, how a configuration or a run is named.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 the run failed, 2 the input was wrong,
130 interrupted (the state was saved first).
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from scaletrain.errors import ConfigError, ScaletrainError
from scaletrain.log import console, setup_logging, visible

P = ParamSpec("P")

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="a YAML file; a path or any fsspec URL")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="fields to change, as train.steps=200")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="a run's name, URL or folder, or its CONFIG file")]
Root = Annotated[str, typer.Option("--root", help="the storage root that a run's name belongs to")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """End a command with the message and exit code of a ScaletrainError instead of a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        setup_logging()
        if not Path("/dev/nvidiactl").exists():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed says on stdout that it found no GPU
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress is shown by scaletrain itself
        try:
            command(*args, **kwargs)
        except ScaletrainError as error:
            _print_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None

    return run


def examples(*lines: str) -> str:
    """What a command's help ends with: command lines to copy, never wrapped."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


def _print_error(error: ScaletrainError) -> None:
    """Print what went wrong; a message may quote what strangers wrote."""
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        print(f"{len(error.problems)} problems:", file=sys.stderr)
        for problem in error.problems:
            print(f"  - {visible(problem)}", file=sys.stderr)
    elif error.exit_code == 130:
        print(visible(str(error)), file=sys.stderr)
    else:
        print(f"error: {visible(str(error))}", file=sys.stderr)


def find_run_of(name: str, root: str) -> Any:
    """The run that a name, a URL or a configuration file stands for."""
    from scaletrain import storage
    from scaletrain.layout import RunLayout
    from scaletrain.runs import find_run

    if not is_config_file(name):
        return find_run(name, root=root)
    loaded = load_config_file(name, None)
    storage.configure(loaded.storage.root, loaded.storage.options)
    return RunLayout(loaded.storage.root, loaded.name)


def is_config_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def print_result(record: Any, *, as_json: bool, display: Callable[[], Any]) -> None:
    if as_json:
        import orjson

        print(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode())
        return
    shown = display()
    if isinstance(shown, str):  # to be copied from the terminal, so it is not wrapped
        print(visible(shown))
        return
    console(stderr=False).print(shown)


def load_config_file(path: str, overrides: list[str] | None) -> Any:
    from scaletrain.config_file import load_config

    return load_config(path, overrides or [])

"""The code that a job needs, as one small archive: scaletrain's own source where it is not an installed version, and
the user's modules that the configuration names. Same files, same bytes: Ray uploads it once."""

import importlib.util
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import scaletrain
from scaletrain.config import Config
from scaletrain.errors import ConfigError

_LARGEST_BYTES = 20 * 2**20
_PROJECT = "scaletrain"
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_INSTALLED = ("site-packages", "dist-packages")
_LEFT_OUT = ("__pycache__", "node_modules")


def is_installed_version() -> bool:
    """Whether this scaletrain was installed from a package, and does not run from its source."""
    return _is_installed(_folder_of_scaletrain())


def pack_project(config: Config | None, *, extra: Sequence[tuple[str, bytes]] = ()) -> bytes | None:
    """Return a zip archive to be unpacked first on PYTHONPATH, or None where all that is needed is installed.

    `extra` are further files, (name, bytes). Raises ConfigError where a module that the configuration names cannot be
    found, or is too large.
    """
    files = dict(extra)
    if not is_installed_version():
        files |= dict(_files_below(_folder_of_scaletrain(), _PROJECT))
    problems: list[str] = []
    for setting, name in user_functions(config) if config else ():
        try:
            files |= dict(_module_files(name, setting=setting))
        except ConfigError as error:
            problems += error.problems
    size = sum(len(data) for data in files.values())
    if size > _LARGEST_BYTES:
        largest = max(files, key=lambda name: len(files[name]))
        problems.append(
            f"the project's code is {size / 2**20:.0f} MiB, too much to be sent with every job (the largest file is "
            f"{largest}); keep data in the bucket and out of packages, or install it on the cluster by setup_commands"
        )
    if problems:
        raise ConfigError(problems)
    return _archive(files) if files else None


def user_functions(config: Config) -> list[tuple[str, str]]:
    """The user's functions that a configuration names, as (field, my_package.module:function)."""
    named = [(f"data.corpora.{index}.format", corpus.format) for index, corpus in enumerate(config.data.corpora)]
    named += [
        (f"data.cleaning.{index}", step) for index, step in enumerate(config.data.cleaning) if isinstance(step, str)
    ]
    return [(setting, name) for setting, name in named if ":" in name]


def _module_files(function: str, *, setting: str) -> Iterator[tuple[str, bytes]]:
    """The files of the package or module that a function is in; none where it is installed, as it must be there too."""
    top = function.partition(":")[0].partition(".")[0]
    here = str(Path.cwd())
    added = here not in sys.path
    if added:  # where a run on this machine looks for it, too
        sys.path.append(here)
    try:
        spec = importlib.util.find_spec(top)
    finally:
        if added:
            sys.path.remove(here)
    if spec is None:
        raise ConfigError(f"{setting}: {function}: no module {top} here; run from the folder that holds it ({here})")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    origin = Path(spec.origin) if spec.origin and spec.has_location else None
    if any(_is_installed(path) for path in (*folders, *([origin] if origin else []))):
        return
    if folders:
        for folder in folders:
            yield from _files_below(folder, top)
    elif origin is not None:
        yield origin.name, origin.read_bytes()


def _files_below(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a package, without caches and without hidden ones, which are nobody's code."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in _LEFT_OUT for part in parts) or path.suffix == ".pyc":
            continue
        if path.is_file():
            yield "/".join((name, *parts)), path.read_bytes()


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _folder_of_scaletrain() -> Path:
    assert scaletrain.__file__ is not None
    return Path(scaletrain.__file__).parent


def _is_installed(path: Path) -> bool:
    return any(part in _INSTALLED for part in path.parts) or path.is_relative_to(sys.base_prefix + "/lib")

"""What a model's name means: a run, a folder, a URL, a GGUF file or a Hugging Face id; as a local folder."""

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from scaletrain import storage
from scaletrain.config_model import ModelSection
from scaletrain.errors import ModelError
from scaletrain.layout import RunLayout
from scaletrain.model.build import fetch, materialise
from scaletrain.model.export import find_checkpoint, write_export
from scaletrain.model.store import cache_folder, locked

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RUN_URL = re.compile(r"(?P<root>.+)/runs/(?P<name>[^/]+)(/checkpoints/step-(?P<step>\d+))?")
_SHOWN_RUNS = 10
_UNUSED_S = 3600.0


def resolve_model(name_or_url: str, *, root: str) -> Path:
    """Return a local Hugging Face folder with the model.

    A run of `root` goes before a folder of the same name (write ./NAME for that one); so does the URL of any run, or
    of one of its checkpoints. What must be converted or downloaded is kept in the user's cache. Raises ModelError that
    says what was tried.
    """
    found = _find_run(name_or_url, root)
    if found is not None:
        return _exported(*found)
    if storage.is_local(name_or_url) and (storage.local_path(name_or_url) / "config.json").is_file():
        return storage.local_path(name_or_url)
    try:
        url = materialise(ModelSection(source=name_or_url), root=str(cache_folder()), seed=0)  # type: ignore[call-arg]
    except ModelError as exc:
        run = _RUN_URL.fullmatch(name_or_url.rstrip("/"))
        raise ModelError(f"{exc}\n{_runs_of(run['root'] if run else root)}") from exc
    return fetch(url)


def newest_version(name_or_url: str, *, root: str) -> str | None:
    """Say which version of a model there is: another text when its run has a newer checkpoint, or its files changed.

    None where it cannot be read at the moment (an export is being replaced). What cannot change has one version.
    """
    found = _find_run(name_or_url, root)
    if found is not None:
        return find_checkpoint(*found).manifest_hash
    objects = storage.list_objects(name_or_url) if not _is_hub_id(name_or_url) else []
    if not objects:
        return ""
    names = {each.url.rpartition("/")[2] for each in objects}
    if len(objects) > 1 and "config.json" not in names:
        return None
    digest = hashlib.sha256()
    for each in sorted(objects, key=lambda each: each.url):
        digest.update(f"{each.url} {each.version}\n".encode())
    return digest.hexdigest()


def _is_hub_id(name: str) -> bool:
    """Say whether a name is none of a folder, a file or a URL."""
    return name.startswith("package:") or (storage.is_local(name) and not storage.local_path(name).exists())


def _find_run(name: str, root: str) -> tuple[RunLayout, int | None] | None:
    if _RUN_NAME.fullmatch(name):
        run = RunLayout(root, name)
        return (run, None) if storage.exists(run.url) else None
    match = _RUN_URL.fullmatch(name.rstrip("/"))
    if match is None:
        return None
    run = RunLayout(match["root"], match["name"])
    step = int(match["step"]) if match["step"] else None
    return (run, step) if storage.exists(run.config) else None


def _exported(run: RunLayout, step: int | None) -> Path:
    """The run's model in the user's cache, exported once per checkpoint."""
    manifest = find_checkpoint(run, step)
    folder = cache_folder() / "exports" / f"{run.name}-{manifest.step}-{manifest.manifest_hash[:12]}"
    with locked(folder):
        if (folder / "config.json").is_file():
            os.utime(folder)
        else:
            _forget_unused(folder.parent, run.name)
            with TemporaryDirectory(prefix=".partial-", dir=folder.parent) as temporary:
                work = Path(temporary) / "model"
                write_export(run, manifest, work)
                work.replace(folder)  # an empty folder until now: the whole model appears at once
    return folder


def _forget_unused(exports: Path, run_name: str) -> None:
    """Remove a run's exports that nobody asked for in the last hour: a server makes one of every checkpoint.

    Whoever has loaded one goes on: its files stay until they are closed.
    """
    for each in exports.glob(f"{run_name}-*"):
        if re.fullmatch(rf"{re.escape(run_name)}-\d+-[0-9a-f]{{12}}", each.name) is None:
            continue
        with suppress(FileNotFoundError):  # another process removes them too
            if time.time() - each.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(each, ignore_errors=True)


def _runs_of(root: str) -> str:
    runs = storage.list_folders(storage.join(root, "runs"))
    if not runs:
        return f"nor is it a run: there are none in {root} (--root names another storage root)"
    more = f" and {len(runs) - _SHOWN_RUNS} more" if len(runs) > _SHOWN_RUNS else ""
    return f"nor is it a run: those in {root} are {', '.join(runs[:_SHOWN_RUNS])}{more}"

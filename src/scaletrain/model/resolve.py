"""What a model's name means: a run, a folder, a URL, a GGUF file or a Hugging Face id; as a local folder."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from scaletrain import storage
from scaletrain.config import ModelSection
from scaletrain.errors import ModelError
from scaletrain.layout import RunLayout
from scaletrain.model.build import fetch, materialise
from scaletrain.model.export import find_checkpoint, write_export
from scaletrain.model.store import cache_folder, locked

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RUN_URL = re.compile(r"(?P<root>.+)/runs/(?P<name>[^/]+)(/checkpoints/step-(?P<step>\d+))?")
_SHOWN_RUNS = 10


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
        raise ModelError(f"{exc}\n{_runs_of(root)}") from exc
    return fetch(url)


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
        if not (folder / "config.json").is_file():
            with TemporaryDirectory(prefix=".partial-", dir=folder.parent) as temporary:
                work = Path(temporary) / "model"
                write_export(run, manifest, work)
                work.replace(folder)  # an empty folder until now: the whole model appears at once
    return folder


def _runs_of(root: str) -> str:
    runs = storage.list_folders(storage.join(root, "runs"))
    if not runs:
        return f"nor is it a run: there are none in {root}"
    more = f" and {len(runs) - _SHOWN_RUNS} more" if len(runs) > _SHOWN_RUNS else ""
    return f"nor is it a run: those in {root} are {', '.join(runs[:_SHOWN_RUNS])}{more}"

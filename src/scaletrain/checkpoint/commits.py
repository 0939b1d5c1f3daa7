"""Committing checkpoints, finding the newest that is whole, and removing old ones."""

from dataclasses import asdict

import orjson

from scaletrain import storage
from scaletrain.checkpoint.manifest import MANIFEST, Manifest, load_manifest, seal
from scaletrain.checkpoint.shard_file import VerifiedFile
from scaletrain.errors import CheckpointError, NotFoundError
from scaletrain.layout import RunLayout, step_of
from scaletrain.log import get_logger

log = get_logger(__name__)


def latest(run: RunLayout) -> Manifest | None:
    """The newest checkpoint whose manifest is whole and whose files have the sizes it states; None if there is none.

    This is the only answer to "latest": retry, resume, evaluate, export and serve all ask it. A newer folder that
    does not verify is passed over with a warning that says why; one without a manifest was never committed.
    """
    for step in _step_folders(run):
        found = _check(run.checkpoint(step))
        if isinstance(found, Manifest):
            return found
        if isinstance(found, CheckpointError):
            log.warning("passing over step %d: %s", step, found)
    return None


def commit(checkpoint_url: str, manifest: Manifest) -> Manifest:
    """Write the manifest, which makes the checkpoint real; every file must have been written before."""
    sealed = seal(manifest)
    storage.write_bytes(
        storage.join(checkpoint_url, MANIFEST), orjson.dumps(asdict(sealed), option=orjson.OPT_INDENT_2)
    )
    return sealed


def prune(run: RunLayout, *, keep: int) -> list[int]:
    """Remove all but the newest `keep` checkpoints that are whole, and everything else that is older than the newest.

    Returns the steps that were removed. Each manifest goes first, so that no half-removed folder looks committed.
    """
    steps = _step_folders(run)
    whole = [step for step in steps if isinstance(_check(run.checkpoint(step)), Manifest)]
    if not whole:
        return []
    removed = [step for step in steps if step not in whole[:keep] and step < whole[0]]
    for step in removed:
        storage.remove(storage.join(run.checkpoint(step), MANIFEST))
        storage.remove(run.checkpoint(step))
    return removed


def check_sizes(checkpoint_url: str, manifest: Manifest) -> None:
    """Raise CheckpointError unless every file of the manifest is there with its size."""
    found = {info.url.rsplit("/", 1)[-1]: info.size_bytes for info in storage.list_objects(checkpoint_url)}
    for file in manifest.files:
        size = found.get(file.name)
        if size is None:
            raise CheckpointError(f"{storage.join(checkpoint_url, file.name)} is missing")
        if size != file.size_bytes:
            url = storage.join(checkpoint_url, file.name)
            raise CheckpointError(f"{url} has {size} bytes, its manifest says {file.size_bytes}")


def verify(checkpoint_url: str) -> Manifest:
    """Read every byte of a checkpoint against its checksums; raises CheckpointError that names file and chunk."""
    manifest = load_manifest(checkpoint_url)
    check_sizes(checkpoint_url, manifest)
    for record in manifest.files:
        file = VerifiedFile(storage.join(checkpoint_url, record.name), record)
        for chunk in range(len(record.chunks)):
            file.chunk(chunk)
    return manifest


def _check(checkpoint_url: str) -> Manifest | CheckpointError | None:
    """The manifest of a whole checkpoint, what is wrong with a damaged one, None where nothing was committed."""
    try:
        manifest = load_manifest(checkpoint_url)
        check_sizes(checkpoint_url, manifest)
    except NotFoundError:
        return None
    except CheckpointError as error:
        return error
    return manifest


def _step_folders(run: RunLayout) -> list[int]:
    """The steps that have a folder, newest first."""
    steps = (step_of(name) for name in storage.list_folders(run.checkpoints))
    return sorted((step for step in steps if step is not None), reverse=True)

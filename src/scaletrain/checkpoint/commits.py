"""Committing checkpoints, finding the newest that is whole, and removing old ones."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import orjson

from scaletrain import storage
from scaletrain.attempts import Attempts, check_newest, read_attempts
from scaletrain.checkpoint.manifest import MANIFEST, Manifest, load_manifest, seal
from scaletrain.checkpoint.shard_file import VerifiedFile
from scaletrain.errors import CheckpointError, DamagedError, NewerFormatError, NotFoundError, TrainingError
from scaletrain.layout import RunLayout, step_of
from scaletrain.log import get_logger

_PARALLEL_READS = 8
_LOOKS = 2  # for a commit, where none is found: the one that was listed may just have been replaced
_ATTEMPT = re.compile(r"attempt-(\d+)\.")

log = get_logger(__name__)


def latest(run: RunLayout, *, passing_over: Mapping[int, CheckpointError] = {}) -> Manifest | None:
    """The newest checkpoint whose manifest is whole and whose files have the sizes it states; None if there is none.

    This is the only answer to "latest": retry, resume, evaluate, export and serve all ask it. A newer folder that
    does not verify is passed over with a warning that says why; one without a manifest was never committed; one that
    an attempt committed after a newer attempt had gone on without it does not count. `passing_over` has the steps whose
    bytes were found to be damaged, and how. Raises NewerFormatError where a newer version of scaletrain wrote the
    newest, and DamagedError where there are checkpoints and none of them is whole: None would have the run begin anew.
    """
    newest, damaged = _find_newest(run, passing_over)
    damaged = [*passing_over.values(), *damaged]
    if newest is None and damaged:
        raise DamagedError(
            f"no checkpoint of {run.url} is whole: {'; '.join(map(str, damaged))}. Bring an older version of these "
            "files back (a bucket made by `scaletrain cluster init` keeps them), or start anew with name=..."
        )
    return newest


def newest_whole(run: RunLayout, *, passing_over: Collection[int] = ()) -> Manifest | None:
    """The same for those who only look at a run: None also where every checkpoint is damaged, with warnings."""
    return _find_newest(run, passing_over)[0]


def commit(checkpoint_url: str, manifest: Manifest, *, check: Callable[[], object] = lambda: None) -> Manifest:
    """Write the manifest, which makes the checkpoint real; every file must have been written before.

    It never takes the place of a newer attempt's: then TrainingError is raised. An older attempt's, which does not
    count any more, is replaced, and nothing else that may have come there meanwhile. `check` is asked before, and
    raises where this attempt is not the newest.
    """
    sealed = seal(manifest)
    data = orjson.dumps(asdict(sealed), option=orjson.OPT_INDENT_2)
    while not (
        storage.create(storage.join(checkpoint_url, MANIFEST), data)
        or _replace_an_older(checkpoint_url, manifest, data, check)
    ):
        pass  # another has come there meanwhile, or is gone
    return sealed


def prune(run: RunLayout, *, keep: int, attempt: int, nonce: str = "") -> list[int]:
    """Remove all but the newest `keep` checkpoints that count and are whole, and what `attempt` does not need.

    That is everything older than the newest one, what older attempts left beyond it, and what they left in the folders
    that stay. Returns the steps that were removed. Each manifest goes first, so that no half-removed folder looks
    committed. Raises TrainingError where the attempt, which has that `nonce`, is not the newest any more.
    """
    known, steps = read_attempts(run), _step_folders(run)
    found = {step: _check(run.checkpoint(step), known) for step in steps}
    whole = {step: manifest for step, manifest in found.items() if isinstance(manifest, Manifest)}
    if not whole:
        return []
    kept, newest = list(whole)[:keep], max(whole)
    removed = [
        step for step in steps if step not in kept and (step < newest or _is_abandoned(run.checkpoint(step), attempt))
    ]
    for step in removed:
        check_newest(run, attempt, nonce)
        if step < newest:
            storage.remove(storage.join(run.checkpoint(step), MANIFEST))
            storage.remove(run.checkpoint(step))
        else:
            _remove_what_older_attempts_left(run.checkpoint(step), attempt)
    for step in kept:
        _sweep(run.checkpoint(step), whole[step], attempt)
    return removed


def check_sizes(checkpoint_url: str, manifest: Manifest) -> None:
    """Raise CheckpointError unless every file of the manifest is there with its size."""
    found = {info.url.rsplit("/", 1)[-1]: info.size_bytes for info in storage.list_objects(checkpoint_url)}
    for file in manifest.files:
        url = storage.join(checkpoint_url, file.name)
        size = found.get(file.name)
        if size is None:
            try:
                size = storage.info(url).size_bytes  # a listing may be stale, an object is not
            except NotFoundError:
                raise CheckpointError(f"{url} is missing") from None
        if size != file.size_bytes:
            raise CheckpointError(f"{url} has {size} bytes, its manifest says {file.size_bytes}")


def verify(checkpoint_url: str) -> Manifest:
    """Read every byte of a checkpoint against its checksums; raises CheckpointError that names file and chunk."""
    manifest = load_manifest(checkpoint_url)
    check_sizes(checkpoint_url, manifest)
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for record in manifest.files:
            file = VerifiedFile(storage.join(checkpoint_url, record.name), record)
            for _ in pool.map(file.chunk, range(len(record.chunks))):
                pass
    return manifest


def _replace_an_older(checkpoint_url: str, manifest: Manifest, data: bytes, check: Callable[[], object]) -> bool:
    """Put a manifest in the place of an older attempt's or a damaged one; False where that is there no more."""
    url = storage.join(checkpoint_url, MANIFEST)
    try:
        version = storage.info(url).version
        there = load_manifest(checkpoint_url)
    except NotFoundError:
        return False
    except NewerFormatError:
        raise
    except CheckpointError as error:
        log.warning("replacing a damaged manifest: %s", error)
    else:
        if there.attempt > manifest.attempt:
            raise TrainingError(
                f"attempt {manifest.attempt} ends without its checkpoint of step {manifest.step}: attempt "
                f"{there.attempt} has taken the run over and has committed that step"
            )
    check()  # after the look: what was there then is not of a newer attempt, and nothing else is replaced
    return storage.replace(url, data, version=version)


def _find_newest(run: RunLayout, passing_over: Collection[int]) -> tuple[Manifest | None, list[CheckpointError]]:
    """The newest checkpoint that is whole, and what is wrong with those that are newer."""
    damaged: dict[int, CheckpointError] = {}
    newest = None
    for _ in range(_LOOKS):
        known, damaged = read_attempts(run), {}
        steps = {*_step_folders(run), *_hinted_step(run)} - set(passing_over)
        for step in sorted(steps, reverse=True):
            found = _check(run.checkpoint(step), known)
            if isinstance(found, Manifest):
                newest = found
                break
            if isinstance(found, CheckpointError):
                damaged[step] = found
        if newest is not None or not steps:
            break
    for step, error in damaged.items():
        log.warning("passing over step %d: %s", step, error)
    return newest, list(damaged.values())


def _check(checkpoint_url: str, known: Attempts) -> Manifest | CheckpointError | None:
    """The manifest of a whole checkpoint, what is wrong with a damaged one, None where nothing counts."""
    try:
        manifest = load_manifest(checkpoint_url)
        if not known.counts(manifest.attempt, manifest.step):
            return None
        check_sizes(checkpoint_url, manifest)
    except NotFoundError:
        return None
    except NewerFormatError:
        raise
    except CheckpointError as error:
        return error
    return manifest


def _sweep(checkpoint_url: str, manifest: Manifest, attempt: int) -> None:
    """Remove from a checkpoint's folder what its manifest does not list; a newer attempt's files are left alone."""
    listed = {file.name for file in manifest.files}
    for url, writer in _files_of(checkpoint_url):
        if writer is not None and writer <= attempt and url.rsplit("/", 1)[-1] not in listed:
            storage.remove(url)
    storage.remove_half_written(checkpoint_url)


def _remove_what_older_attempts_left(checkpoint_url: str, attempt: int) -> None:
    """File by file: others of this attempt or a newer one may have come to this step meanwhile, and store theirs there.

    A manifest stays, for it may be theirs; an older attempt's does not count, and is replaced when the step is saved.
    """
    for url, writer in _files_of(checkpoint_url):
        if writer is not None and writer < attempt:
            storage.remove(url)


def _is_abandoned(checkpoint_url: str, attempt: int) -> bool:
    """Whether a folder beyond the newest checkpoint has files, and none of this attempt or a newer one, which saves."""
    writers = [writer for _, writer in _files_of(checkpoint_url) if writer is not None]
    return bool(writers) and max(writers) < attempt


def _files_of(checkpoint_url: str) -> Iterator[tuple[str, int | None]]:
    """Each file's URL, and the attempt that wrote it; None for what bears no attempt in its name."""
    for info in storage.list_objects(checkpoint_url):
        match = _ATTEMPT.match(info.url.rsplit("/", 1)[-1])
        yield info.url, int(match[1]) if match else None


def _step_folders(run: RunLayout) -> list[int]:
    """The steps that have a folder, newest first."""
    steps = (step_of(name) for name in storage.list_folders(run.checkpoints))
    return sorted((step for step in steps if step is not None), reverse=True)


def _hinted_step(run: RunLayout) -> tuple[int, ...]:
    """The step that was committed last, for where the listing does not show it yet; its manifest decides."""
    try:
        return (int(storage.read_bytes(run.newest_hint)),)
    except (NotFoundError, ValueError):
        return ()

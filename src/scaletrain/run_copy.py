"""`scaletrain runs copy`: a run goes to another bucket or cloud with all that it needs, and goes on there.

The dataset and the model come along, so that neither corpora nor hub have to be within reach of the new place. Each
file passes through this machine, where it is compared chunk by chunk with the checksums that its index or manifest
holds; so is what an earlier copy has brought there already, unless both stores are of a kind and tell that it is the
same. What makes others trust a folder (index.json, manifest.json, and the run's config.yaml at the very end) is
written after all that it speaks of: a copy that was interrupted is no run yet, and the same command finishes it.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import xxhash

from scaletrain import attempts, checkpoint, storage
from scaletrain.checkpoint import MANIFEST
from scaletrain.config_file import dump_config, load_config
from scaletrain.data import shards
from scaletrain.data.dataset_files import Listed
from scaletrain.errors import CheckpointError, ConfigError, DamagedError, NotFoundError
from scaletrain.layout import RunLayout, dataset_url, model_url, step_of
from scaletrain.log import get_logger, progress
from scaletrain.model import store
from scaletrain.run_inputs import inputs_of
from scaletrain.runs import check_exists

_FILES_AT_ONCE = 4
_BLOCK_BYTES = 8 * 1024 * 1024  # a chunk of a checkpoint's file

log = get_logger(__name__)


@dataclass(frozen=True)
class Copied:
    """What a copy took; `found` were there already from one that was interrupted."""

    url: str
    step: int
    files: int
    found: int
    size_bytes: int

    def record(self) -> dict[str, object]:
        """The result as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class _File:
    """One file on its way; `checksum` is the xxh3-128 of it, `chunks` the xxh3-64 of each 8 MiB, where known."""

    source: str
    target: str
    size_bytes: int
    checksum: str = ""
    chunks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Content:
    """What bytes are: their number, the xxh3-128 of all of them, and the xxh3-64 of each 8 MiB."""

    size_bytes: int
    checksum: str
    chunks: tuple[str, ...]


def copy_run(source: RunLayout, target: RunLayout) -> Copied:
    """Copy a run that nobody trains to another storage root.

    Raises ConfigError where the target has such a run already, TrainingError where the source is being trained,
    DamagedError for a file that does not match its checksum, NotFoundError, StorageError.
    """
    check_exists(source)
    _check_target(source, target)
    attempts.refuse_a_second(source)
    newest = checkpoint.latest(source)
    groups: list[Sequence[_File]] = []
    if newest is not None:
        inputs = inputs_of(source, newest)
        groups += _dataset(inputs.dataset_url, target.root)
        groups += _model(inputs.model_url, target.root)
    groups += _checkpoints(source, target)
    groups.append(list(_records(source, target)))
    found = _copy_groups(groups)
    config = load_config(source.config, ())
    there = config.storage.model_copy(update={"root": target.root, "options": storage.options_of(target.root)})
    storage.write_text(target.config, dump_config(config.model_copy(update={"storage": there})))
    files = [file for group in groups for file in group]
    size_bytes = sum(file.size_bytes for file in files)
    return Copied(target.url, newest.step if newest else 0, len(files) + 1, found, size_bytes)


def _check_target(source: RunLayout, target: RunLayout) -> None:
    if source.name != target.name:
        raise ConfigError(f"{target.url}: a run keeps its name; give .../runs/{source.name}, or the storage root alone")
    if source.url.rstrip("/") == target.url.rstrip("/"):
        raise ConfigError(f"{target.url}: that is where the run is")
    if storage.exists(target.config):
        raise ConfigError(f"{target.url}: there is a run of this name already; remove it, or give another root")


# --- What there is to copy ----------------------------------------------------------------------------------------


def _dataset(url: str, root: str) -> list[Sequence[_File]]:
    target = dataset_url(root, url.rsplit("/", 1)[-1])
    index = shards.load_index(url)
    listed: list[Listed] = [*(shard for split in index.splits.values() for shard in split.shards), *index.files]
    files = [_file(url, target, one.name, one.size_bytes, checksum=one.checksum) for one in listed]
    return [files, _others(url, target, {file.source for file in files}, last=shards.INDEX)]


def _model(url: str, root: str) -> list[Sequence[_File]]:
    target = model_url(root, url.rsplit("/", 1)[-1])
    files = [_file(url, target, one.name, one.size_bytes, checksum=one.checksum) for one in store.load_index(url).files]
    return [files, _others(url, target, {file.source for file in files}, last=store.INDEX)]


def _checkpoints(source: RunLayout, target: RunLayout) -> Iterator[Sequence[_File]]:
    """All committed checkpoints, the oldest first; what was never committed, or is damaged, stays behind."""
    for step in sorted(filter(None, map(step_of, storage.list_folders(source.checkpoints)))):
        url, there = source.checkpoint(step), target.checkpoint(step)
        try:
            manifest = checkpoint.load_manifest(url)
        except NotFoundError:
            continue
        except CheckpointError as error:
            log.warning("left out: %s", error)
            continue
        yield [_file(url, there, one.name, one.size_bytes, chunks=one.chunks) for one in manifest.files]
        yield [_file(url, there, MANIFEST, storage.info(storage.join(url, MANIFEST)).size_bytes)]


def _records(source: RunLayout, target: RunLayout) -> Iterator[_File]:
    """Everything else of the run: ledger, metrics, attempts, evaluations, an export, and the hint at the newest."""
    for found in storage.list_objects(source.url):
        is_shard = found.url.startswith(f"{source.checkpoints}/") and found.url != source.newest_hint
        if not is_shard and found.url != source.config:
            name = found.url.removeprefix(f"{source.url}/")
            yield _File(found.url, storage.join(target.url, name), found.size_bytes)


def _others(url: str, target: str, listed: set[str], *, last: str) -> list[_File]:
    """The files of a folder that its index does not list, and the index behind them."""
    found = [each for each in storage.list_objects(url) if each.url not in listed]
    found.sort(key=lambda each: each.url.endswith(f"/{last}"))
    return [_File(each.url, storage.join(target, each.url.removeprefix(f"{url}/")), each.size_bytes) for each in found]


def _file(
    url: str, target: str, name: str, size_bytes: int, *, checksum: str = "", chunks: tuple[str, ...] = ()
) -> _File:
    return _File(storage.join(url, name), storage.join(target, name), size_bytes, checksum, chunks)


# --- Copying ------------------------------------------------------------------------------------------------------


def _copy_groups(groups: Iterable[Sequence[_File]]) -> int:
    """Copy one group after the other, files of a group side by side; returns how many were there already."""
    groups, found = list(groups), 0
    with progress(unit="MB") as display, TemporaryDirectory(prefix="scaletrain-copy-") as folder:
        task = display.add_task("copying", total=sum(file.size_bytes for group in groups for file in group) // 10**6)
        done_bytes = 0
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for number, group in enumerate(groups):
                paths = [Path(folder) / f"{number}-{place}" for place in range(len(group))]
                for file, was_there in zip(group, pool.map(_copy, group, paths), strict=True):
                    found += was_there
                    done_bytes += file.size_bytes
                    display.update(task, completed=done_bytes // 10**6)
    return found


def _copy(file: _File, path: Path) -> bool:
    """Copy one file by way of this machine's disk; returns whether it was there already."""
    if _is_there(file, path):
        return True
    misfit = _misfit(file, _fetch(file.source, path))
    if misfit is not None:
        raise DamagedError(misfit)
    storage.upload_file(path, file.target)
    path.unlink()
    return False


def _is_there(file: _File, path: Path) -> bool:
    """Whether the target has these bytes: both stores say so, or they are read.

    A file of the same size may be another, where the source has trained on since a copy that was interrupted.
    """
    try:
        there = storage.info(file.target)
    except NotFoundError:
        return False
    if there.size_bytes != file.size_bytes:
        return False
    stores_are_alike = _kind(file.source) == _kind(file.target)
    if stores_are_alike and there.checksum and there.checksum == storage.info(file.source).checksum:
        return True
    found = _fetch(file.target, path)
    is_known = bool(file.checksum or file.chunks)
    is_same = _misfit(file, found) is None if is_known else found == _fetch(file.source, path)
    path.unlink()
    return is_same


def _kind(url: str) -> str:
    return url.partition("://")[0]


def _fetch(url: str, path: Path) -> _Content:
    """Copy an object to a local file, and hash that."""
    storage.download_file(url, path)
    whole, chunks, size_bytes = xxhash.xxh3_128(), [], 0
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            whole.update(block)
            chunks.append(xxhash.xxh3_64_hexdigest(block))
            size_bytes += len(block)
    return _Content(size_bytes, whole.hexdigest(), tuple(chunks))


def _misfit(file: _File, found: _Content) -> str | None:
    """What is wrong with bytes, by all that is known of a file; None where nothing is."""
    if found.size_bytes != file.size_bytes:
        return f"{file.source} has {found.size_bytes} bytes, expected were {file.size_bytes}"
    if file.chunks and found.chunks != file.chunks:
        place = next(at for at, pair in enumerate(zip(found.chunks, file.chunks, strict=True)) if pair[0] != pair[1])
        return f"chunk {place} of {file.source} does not match its checksum: the file is damaged"
    if file.checksum and found.checksum != file.checksum:
        return f"{file.source} does not match its checksum: the file is damaged"
    return None

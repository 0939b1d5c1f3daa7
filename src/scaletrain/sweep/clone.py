"""A clone: a new run that goes on from another run's committed step, to the byte, with other values.

It is an ordinary run from then on, and its records are an exact account of how its state came to be: the donor's lines
of ledger and metrics up to the step, then its own, in one chain of hashes. The donor's attempts up to that commit come
along, so that the clone's own first attempt has the next number and goes on from the commit. What makes it a run,
config.yaml, is written last: a clone that was interrupted is none yet, and is made anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from scaletrain import checkpoint, storage
from scaletrain.attempts import Attempts, read_attempts
from scaletrain.checkpoint import MANIFEST, Manifest
from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.errors import CheckpointError, NotFoundError
from scaletrain.layout import RunLayout, part_name
from scaletrain.log import get_logger
from scaletrain.metrics import read_attempt_records, read_last_record
from scaletrain.storage.parallel import in_parallel

_FILES_AT_ONCE = 4
_TRIES = 3  # a donor that trains on may have removed the commit that was chosen

log = get_logger(__name__)


@dataclass(frozen=True)
class Cloned:
    """What a clone begins with; `manifest_hash` covers the checksums of all its files.

    `cost_usd` is what the donor had cost at that step, None where that is not known.
    """

    run: str
    donor: str
    step: int
    manifest_hash: str
    cost_usd: float | None = None


def clone_run(donor: RunLayout, target: RunLayout, config: Config, *, step: int | None = None) -> Cloned | None:
    """Make `target` a run of `config` that goes on from a commit of the donor's; None where the donor has none.

    That is the commit of `step` if it is given and still there, else the newest one.

    A clone that is there already is returned as it is. Every byte is compared with the donor's checksums before the
    clone becomes a run: raises CheckpointError where one differs, and StorageError.
    """
    if storage.exists(target.config):
        return _made_before(target)
    for _ in range(_TRIES):
        chosen = _commit_of(donor, step) or checkpoint.latest(donor)
        if chosen is None:
            return None
        storage.remove(target.url)  # what an interrupted clone has left
        try:
            return _clone(donor, target, config, chosen)
        except NotFoundError as error:
            log.info("the commit of step %d of %s is gone already: %s", chosen.step, donor.name, error)
    raise CheckpointError(f"{donor.url}: its commits are removed faster than they can be copied; raise checkpoint.keep")


def _commit_of(donor: RunLayout, step: int | None) -> Manifest | None:
    """The commit of a step, where it counts."""
    if step is None:
        return None
    try:
        manifest = checkpoint.load_manifest(donor.checkpoint(step))
    except NotFoundError:
        return None
    return manifest if read_attempts(donor).counts(manifest.attempt, step) else None


def _clone(donor: RunLayout, target: RunLayout, config: Config, manifest: Manifest) -> Cloned:
    step, there = manifest.step, target.checkpoint(manifest.step)
    source = donor.checkpoint(step)
    known = read_attempts(donor)
    with TemporaryDirectory(prefix="scaletrain-clone-") as folder:

        def copy(name: str) -> None:
            path = Path(folder) / name
            storage.download_file(storage.join(source, name), path)
            storage.upload_file(path, storage.join(there, name))
            path.unlink()

        in_parallel(copy, [file.name for file in manifest.files], max_workers=_FILES_AT_ONCE)
    storage.write_bytes(storage.join(there, MANIFEST), storage.read_bytes(storage.join(source, MANIFEST)))
    _copy_attempts(donor, target, known, manifest)
    for kind in ("ledger", "metrics"):
        _copy_lines(getattr(donor, kind), getattr(target, kind), known, manifest)
    storage.write_bytes(target.newest_hint, str(step).encode())
    copied = checkpoint.verify(there)
    if copied.manifest_hash != manifest.manifest_hash:
        raise CheckpointError(f"{there} is not what {source} was: the donor committed that step again meanwhile")
    told = read_last_record(target.metrics).get("cost_usd")
    cost_usd = float(told) if isinstance(told, int | float) else None
    made = Cloned(target.name, donor.name, step, manifest.manifest_hash, cost_usd)
    storage.write_bytes(_note_url(target), orjson.dumps(vars(made), option=orjson.OPT_INDENT_2))
    storage.write_text(target.config, dump_config(config))
    return made


def _copy_attempts(donor: RunLayout, target: RunLayout, known: Attempts, manifest: Manifest) -> None:
    """The donor's attempts up to the one that committed, which for the clone ended with this commit."""
    for number in (each for each in known.claimed if each <= manifest.attempt):
        kinds = ["json"]
        if number in known.resumed_after:
            kinds.append(f"after-{known.resumed_after[number]:04d}")
        if number in known.resumed_from:
            kinds.append(f"from-{known.resumed_from[number]:08d}")
        if number in known.ended and number < manifest.attempt:
            kinds.append("ended")
        if storage.exists(donor.attempt_file(number, "cost")):  # else the clone would put its own price on that time
            kinds.append("cost")
        for kind in kinds:
            storage.write_bytes(target.attempt_file(number, kind), storage.read_bytes(donor.attempt_file(number, kind)))
        if "ended" not in kinds:
            ended = orjson.dumps({"time": manifest.created, "failed": False})
            storage.write_bytes(target.attempt_file(number, "ended"), ended)


def _copy_lines(source: str, target: str, known: Attempts, manifest: Manifest) -> None:
    """The lines that the state at the step rests on: of each attempt those that count, none behind the step."""
    for attempt, records in read_attempt_records(source).items():
        later = known.last_step_of(attempt)
        last = manifest.step if later is None else min(later, manifest.step)
        lines = [_line(record) for step, record in sorted(records.items()) if step <= last]
        if lines and attempt <= manifest.attempt:
            storage.write_bytes(storage.join(target, part_name(attempt, 1)), b"".join(lines))


def _line(record: Mapping[str, object]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _note_url(run: RunLayout) -> str:
    return storage.join(run.url, "cloned.json")


def _made_before(target: RunLayout) -> Cloned:
    return Cloned(**orjson.loads(storage.read_bytes(_note_url(target))))

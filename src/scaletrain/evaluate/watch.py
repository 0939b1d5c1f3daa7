"""Every commit of a run is measured while it trains: perplexity over steps, from the bucket alone.

Training does not know of it: it is not asked, not waited for, and writes nothing for it. Run it on another machine, or
at least on another device, than those that train. A commit that was pruned before its turn is passed over.
"""

import time
from collections.abc import Callable, Iterator

from scaletrain import checkpoint, storage
from scaletrain.attempts import read_attempts
from scaletrain.checkpoint import Manifest
from scaletrain.errors import CheckpointError, NewerFormatError, NotFoundError
from scaletrain.evaluate.measurement import Measurement
from scaletrain.layout import RunLayout, step_of
from scaletrain.log import get_logger

POLL_S = 10.0
ENDED_FOR_S = 60.0  # between two attempts of a run that goes on lie a few seconds

log = get_logger(__name__)


def watch(
    run: RunLayout,
    measure: Callable[[Manifest], Measurement],
    *,
    last_step: Callable[[], int | None],
    poll_s: float = POLL_S,
    ended_for_s: float = ENDED_FOR_S,
) -> Iterator[Measurement]:
    """Yield the measurement of each commit, oldest first, as they come.

    Ends with the commit of `last_step` (asked anew each time, None where it is not known yet), or when the run's
    newest attempt has ended, and nothing has followed for `ended_for_s`.
    """
    measured: set[int] = set()
    ended_since: float | None = None
    while True:
        attempts = read_attempts(run)
        is_ended = attempts.newest > 0 and attempts.newest in attempts.ended  # looked at before the commits
        waiting = [manifest for manifest in _commits(run) if manifest.step not in measured]
        for manifest in waiting:
            measured.add(manifest.step)
            try:
                yield measure(manifest)
            except (CheckpointError, NotFoundError) as error:
                if isinstance(error, NewerFormatError) or storage.exists(run.checkpoint(manifest.step)):
                    raise
                log.warning("step %d was removed before it could be measured", manifest.step)
        if (last := last_step()) is not None and max(measured, default=0) >= last:
            return
        if waiting or not is_ended:
            ended_since = None
        elif ended_since is None:
            ended_since = time.monotonic()
        elif time.monotonic() - ended_since >= ended_for_s:
            log.info("%s has ended at step %d; the same command measures what comes later", run.name, max(measured))
            return
        if not waiting:
            time.sleep(poll_s)


def _commits(run: RunLayout) -> list[Manifest]:
    """The commits that count, oldest first."""
    newest = checkpoint.newest_whole(run)
    if newest is None:
        return []
    attempts = read_attempts(run)
    found = {newest.step: newest}
    for name in storage.list_folders(run.checkpoints):
        step = step_of(name)
        if step is None or step >= newest.step:
            continue
        try:
            manifest = checkpoint.load_manifest(run.checkpoint(step))
        except (CheckpointError, NotFoundError):  # not committed, or removed meanwhile
            continue
        if attempts.counts(manifest.attempt, manifest.step):
            found[step] = manifest
    return [found[step] for step in sorted(found)]

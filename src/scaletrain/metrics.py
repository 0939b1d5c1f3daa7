"""Line-by-line records of a run (metrics, ledger): flushed locally at once, uploaded in parts, off the step path."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from scaletrain import storage
from scaletrain.errors import ScaletrainError
from scaletrain.layout import attempt_of_part, part_name
from scaletrain.log import get_logger
from scaletrain.storage.parallel import in_parallel

UPLOAD_EVERY_S = 10.0
_WAKE_EVERY_S = 0.5
_READERS = 16

log = get_logger(__name__)


class RecordWriter:
    """Appends JSON lines to a local file and, from a thread, uploads what is new as the next part.

    `folder_url` receives attempt-0001.part-0001.jsonl, ...; no part is ever rewritten, so a part that is there is
    whole. `write` costs one encoding and one write call. `on_lines` is called in the thread with each batch of new
    lines, for live displays. `close` uploads the rest and raises StorageError where that fails; a failed upload
    before that is tried again with the next part, and so is one that `before_upload` does not let pass.
    """

    def __init__(
        self,
        folder_url: str,
        *,
        attempt: int,
        local_folder: Path,
        before_upload: Callable[[], object] = lambda: None,
        on_lines: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        self._folder_url = folder_url
        self._attempt = attempt
        self._before_upload = before_upload
        self._on_lines = on_lines
        local_folder.mkdir(parents=True, exist_ok=True)
        name = folder_url.rstrip("/").rsplit("/", 1)[-1]
        self._file = (local_folder / f"{name}-attempt-{attempt:04d}.jsonl").open("ab", buffering=0)
        self._lock = threading.Lock()
        self._upload_lock = threading.Lock()
        self._pending: list[bytes] = []
        self._unseen: list[bytes] = []
        self._is_unseen = False
        self._part = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-writer", daemon=True)
        self._thread.start()

    def write(self, record: Mapping[str, object]) -> None:
        """Append one record; numpy scalars are fine, NaN becomes null."""
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
        self._file.write(line)
        with self._lock:
            self._pending.append(line)
            if self._on_lines is not None:
                self._unseen.append(line)

    def flush(self) -> None:
        """Upload everything written so far; raises StorageError."""
        self._show()
        with self._upload_lock:
            with self._lock:
                lines, self._pending = self._pending, []
            if not lines:
                return
            url = storage.join(self._folder_url, part_name(self._attempt, self._part + 1))
            try:
                self._before_upload()
                storage.write_bytes(url, b"".join(lines))
            except ScaletrainError:
                with self._lock:
                    self._pending = lines + self._pending
                raise
            self._part += 1

    def close(self) -> None:
        """Stop the thread and upload the rest."""
        self._closing.set()
        self._thread.join()
        self._file.close()
        self.flush()

    def _show(self) -> None:
        with self._lock:
            lines, self._unseen = self._unseen, []
        if lines and self._on_lines is not None:
            try:
                self._on_lines(lines)
            except Exception as error:  # noqa: BLE001 -- records are kept whether or not anybody sees them
                if not self._is_unseen:
                    log.warning("new lines of %s cannot be shown: %s", self._folder_url, error)
                self._is_unseen = True

    def _run(self) -> None:
        next_upload = time.monotonic() + UPLOAD_EVERY_S
        while not self._closing.wait(_WAKE_EVERY_S):
            self._show()
            if time.monotonic() >= next_upload:
                try:
                    self.flush()
                except ScaletrainError as error:
                    log.warning("records of %s will be uploaded later: %s", self._folder_url, error)
                next_upload = time.monotonic() + UPLOAD_EVERY_S


def read_records(
    folder_url: str, *, last_step_of: Callable[[int], int | None] = lambda attempt: None
) -> list[dict[str, object]]:
    """One record for each step of a run's folder, in the order of steps.

    A step that was trained again after a resume counts as the newest attempt trained it; `last_step_of` tells the last
    step of an attempt that counts, None where all do (see `attempts.Attempts`).
    """
    by_step: dict[int, dict[str, object]] = {}
    for attempt, records in sorted(read_attempt_records(folder_url).items()):
        last = last_step_of(attempt)
        by_step.update((step, record) for step, record in records.items() if last is None or step <= last)
    return [by_step[step] for step in sorted(by_step)]


def read_attempt_records(folder_url: str) -> dict[int, dict[int, dict[str, object]]]:
    """Every record of a run's folder, by attempt and step."""
    found: dict[int, dict[int, dict[str, object]]] = {}
    parts = [
        (attempt, info.url)
        for info in storage.list_objects(folder_url)
        if (attempt := attempt_of_part(info.url)) is not None
    ]
    contents = in_parallel(storage.read_bytes, [url for _, url in parts], max_workers=_READERS)
    for (attempt, _), content in zip(parts, contents, strict=True):
        records = found.setdefault(attempt, {})
        for line in content.splitlines():
            record = orjson.loads(line)
            records[record["step"]] = record
    return found


def read_last_record(folder_url: str) -> dict[str, object]:
    """The newest record of a run's folder: the last line of the newest attempt that has any; empty where none has."""
    parts = [info.url for info in storage.list_objects(folder_url) if attempt_of_part(info.url) is not None]
    if not parts:
        return {}
    newest = max(parts, key=lambda url: (attempt_of_part(url), len(url), url))
    record: dict[str, object] = orjson.loads(storage.read_bytes(newest).splitlines()[-1])
    return record


@dataclass(frozen=True)
class StepMetrics:
    """One line of metrics: what a step was, did and cost.

    `loss` is per supervised token over the global batch, or of preference training per pair; `step_s` the wall time
    from one step's end to the next, of which `data_wait_s` was waiting for rows and `checkpoint_stall_s` saving; `mfu`
    the share of the device's peak; `sequence_parallel` how many workers share each row, where they do.
    `usd_per_hour` is what the machines cost that the run holds at this step, `cost_usd` what the whole run has cost so
    far; both are absent where a price is not known.
    Of preference training: the `pairs` of the step, the mean margin of their rewards, and the share of them that has
    the preferred answer ahead; the same of held-out pairs.
    `skipped`: the loss or a gradient was not finite (both are null then), and nothing was learned.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    samples_seen: int
    supervised_tokens: int
    tokens: int
    tokens_per_s: float
    step_s: float
    data_wait_s: float
    checkpoint_stall_s: float
    world_size: int
    memory_bytes: int
    mfu: float | None = None
    sequence_parallel: int | None = None
    validation_loss: float | None = None
    validation_perplexity: float | None = None
    skipped: bool | None = None
    usd_per_hour: float | None = None
    cost_usd: float | None = None
    pairs: int | None = None
    reward_margin: float | None = None
    pair_accuracy: float | None = None
    validation_reward_margin: float | None = None
    validation_pair_accuracy: float | None = None

    def record(self) -> dict[str, object]:
        """The line as it is written, with the time in UTC."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return {**fields, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}

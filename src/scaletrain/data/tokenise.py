"""Corpora become tokenised documents: files are read, conversations cleaned and encoded, row by row accounted for.

Every row of a corpus gives one row of the tables yielded here, in whatever order: a document, or the reason why there
is none (what threads leave out is one row for each reason, with its `count`). So does the end of a part, unless it was
not read to its end for its unreadable rows. With Ray the work is Ray Data tasks (a part is one reading task; its
conversations are many encoding tasks); without, the same functions run in this process, where a breakpoint works.
"""

import functools
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from scaletrain import errors, ray_cluster, storage
from scaletrain.config import StorageSection
from scaletrain.config_data import Corpus, DataSection
from scaletrain.data.cleaning import with_lists_read
from scaletrain.data.conversation import Conversation
from scaletrain.data.encoding import CONVERSATIONS, DOCUMENTS, KNOWN, Encoder, encode_table, make_encoder
from scaletrain.data.formats import BAD_ROW, SourceFile, read_files
from scaletrain.data.leakage import Leakage
from scaletrain.data.parts import END_OF_PART, Part
from scaletrain.ray_waiting import Demand, find_candidates, wait_for_places
from scaletrain.stop_request import StopRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILE: dict[str, pa.DataType] = {
    "part": pa.int32(),
    "corpus": pa.int32(),
    "file": pa.int32(),
    "url": pa.string(),
    "name": pa.string(),
    "size_bytes": pa.int64(),
    "version": pa.string(),
}
_FAILED = "failed"
_ENCODE_TASK_ROWS = 256
_ENCODE_TASK_CHARS = 16 * 2**20
_SOURCE_FILE = ("url", "name", "size_bytes", "version")
# Half a core each: a task that reads waits half of its time, and on one core it must not keep encoding out.
_TASK_CPUS = 0.5
_STALLED_AFTER_S = 1800.0
# Files that belong together give nothing until all of them are read; a month of Reddit takes hours.
_SLOWEST_READ_BYTES_S = 2**20


def wait_for_cpus(*, wait_s: float) -> None:
    """Wait until a cluster has a machine for the tasks of `tokenise`; not where this machine alone is the cluster.

    Machines without GPUs are asked for first, and in its share of the time every other group that has CPUs. Raises
    ClusterError with the reasons where no machine comes within `wait_s`, Interrupted at the first Ctrl-C. Ray must be
    initialised.
    """
    if ray_cluster.address() is None:
        return
    demand = Demand(
        bundle={"CPU": 2 * _TASK_CPUS},  # of both steps one task
        least=1,
        most=1,
        noun="machines for preparing the data",
        needed="the CPUs that preparing the data needs",
        alternative="prepare the data on another machine, with --local",
    )
    candidates = sorted(find_candidates(demand), key=lambda each: each.has_gpus)
    with StopRequest("stopping") as stop:
        wait_for_places(demand, candidates, wait_s=wait_s, should_stop=stop.asked.is_set)
    if stop.asked.is_set():  # after the last look
        raise errors.Interrupted("stopped while it waited for machines; nothing is lost, the same command goes on")


def tokenise(
    section: DataSection,
    parts: Sequence[Part],
    *,
    storage_section: StorageSection,
    tokenizer: "PreTrainedTokenizerBase",
    leakage: Leakage | None,
    use_ray: bool,
) -> Iterator[pa.Table]:
    """Yield tables of DOCUMENTS, a row for every row of the parts of corpora, and one for the end of each part.

    A corpus's `limit` is applied to each of its files; the caller, who knows the order, applies it to the whole.
    Raises DataError, StorageError and ConfigError of the tasks as they are; with Ray, which must be initialised,
    ClusterError too, as where nothing comes on for half an hour.
    """
    if use_ray:
        pickled = pickle.dumps((tokenizer, leakage))
        yield from _tokenise_with_ray(parts, with_lists_read(section), storage_section, pickled)
        return
    encoder = make_encoder(section, tokenizer, leakage)
    for part in parts:
        for conversations in _read(part, section.corpora, max_bad_rows=section.max_bad_rows):
            yield encode_table(conversations, encoder)


# --- The two steps ------------------------------------------------------------------------------------------------


def _read(part: Part, corpora: Sequence[Corpus], *, max_bad_rows: int) -> Iterator[pa.Table]:
    """Yield a part's files as tables of CONVERSATIONS; a file with too many unreadable rows is not read to its end."""
    corpus = corpora[part.corpus]
    rows: list[dict[str, object]] = []
    num_chars = num_rows = 0
    is_whole = True
    for first, files in part.units(corpus):
        taken = bad_rows = 0
        for number, item in enumerate(read_files(files, corpus=corpus)):
            row = {"corpus": part.corpus, "file": first, "row": number, "source": item.source, "count": 1}
            if isinstance(item, Conversation):
                row |= {name: getattr(item, name) for name in KNOWN}
                row["rejected"] = item.rejected
                row |= {"roles": [turn.role for turn in item.turns], "contents": [turn.content for turn in item.turns]}
                num_chars += sum(len(turn.content) for turn in item.turns)
            else:
                row |= {"reason": item.reason, "detail": item.detail, "count": item.count}
            rows.append(row)
            num_rows += 1
            if len(rows) == _ENCODE_TASK_ROWS or num_chars > _ENCODE_TASK_CHARS:
                yield pa.Table.from_pylist(rows, schema=CONVERSATIONS)
                rows, num_chars = [], 0
            taken += isinstance(item, Conversation)
            bad_rows += row.get("reason") == BAD_ROW
            if taken == corpus.limit or bad_rows > max_bad_rows:
                break
        is_whole &= bad_rows <= max_bad_rows
    if is_whole:
        rows.append({"corpus": part.corpus, "file": part.first, "row": 0, "reason": END_OF_PART, "count": num_rows})
    if rows:
        yield pa.Table.from_pylist(rows, schema=CONVERSATIONS)


def _to_task(number: int, part: Part) -> pa.Table:
    """A part as a table of its files."""
    entries = [
        {"part": number, "corpus": part.corpus, "file": place, **asdict(file)}
        for place, file in enumerate(part.files, start=part.first)
    ]
    return pa.Table.from_pylist(entries, schema=pa.schema(_FILE))


def _parts_of(task: pa.Table) -> Iterator[Part]:
    for _, group in groupby(task.to_pylist(), key=lambda entry: int(entry["part"])):
        entries = list(group)
        files = tuple(SourceFile(*(entry[field] for field in _SOURCE_FILE)) for entry in entries)
        yield Part(entries[0]["corpus"], entries[0]["file"], files)


# --- The same in Ray Data tasks -----------------------------------------------------------------------------------


def _tokenise_with_ray(
    parts: Sequence[Part],
    section: DataSection,
    storage_section: StorageSection,
    pickled: bytes,
) -> Iterator[pa.Table]:
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    read = functools.partial(_read_in_task, section=section, storage_section=storage_section)
    encode_ = functools.partial(_encode_in_task, section=section, storage_section=storage_section, pickled=pickled)
    how: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None, "num_cpus": _TASK_CPUS}
    tasks = [_to_task(number, part) for number, part in enumerate(parts)]
    largest_bytes = max((sum(file.size_bytes for file in part.files) for part in parts), default=0)
    stalled_after_s = _STALLED_AFTER_S + largest_bytes / _SLOWEST_READ_BYTES_S
    with _quiet_ray_data():
        # `from_arrow` would run a task and wait for it here, where nothing limits how long.
        dataset = ray.data.from_blocks(tasks).map_batches(read, **how)
        dataset = dataset.repartition(target_num_rows_per_block=_ENCODE_TASK_ROWS)
        dataset = dataset.map_batches(encode_, **how)
        dataset.context.enable_progress_bars = False
        dataset.context.execution_no_progress_timeout_s = stalled_after_s
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                table = cast(pa.Table, batch)
                _raise_failure(table)
                yield table.select(DOCUMENTS.names).cast(DOCUMENTS)
        except RayError as exc:
            raise errors.ClusterError(f"tokenising failed in Ray: {exc}") from exc
        except ExecutionTimeoutError as exc:
            raise errors.ClusterError(
                f"tokenising made no progress for {stalled_after_s / 60:.0f} minutes: its machines were lost or are "
                "taken, and others do not come (`scaletrain status --cluster FILE` says why), or a cleaning step hangs"
            ) from exc


def _read_in_task(task: pa.Table, *, section: DataSection, storage_section: StorageSection) -> Iterator[pa.Table]:
    _configure_storage(storage_section.root, tuple(sorted(storage_section.options.items())))
    try:
        for part in _parts_of(task):
            yield from _read(part, section.corpora, max_bad_rows=section.max_bad_rows)
    except errors.ScaletrainError as exc:
        yield _failure(exc)


def _encode_in_task(
    conversations: pa.Table, *, section: DataSection, storage_section: StorageSection, pickled: bytes
) -> pa.Table:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # there is a task for each half of a core already
    _configure_storage(storage_section.root, tuple(sorted(storage_section.options.items())))
    try:
        return encode_table(conversations, make_encoder(section, *_unpickled(pickled)))
    except errors.ScaletrainError as exc:
        return encode_table(_failure(exc), Encoder([], _unpickled(pickled)[0], None, None))


def _failure(error: errors.ScaletrainError) -> pa.Table:
    """Send an error as a row: raised in a task, it would come out wrapped, and after pages of Ray's own tracebacks."""
    row = {
        "corpus": 0,
        "file": 0,
        "row": 0,
        "count": 1,
        "reason": _FAILED,
        "detail": f"{type(error).__name__}\n{error}",
    }
    return pa.Table.from_pylist([row], schema=CONVERSATIONS)


def _raise_failure(table: pa.Table) -> None:
    for reason, detail in zip(table["reason"].to_pylist(), table["detail"].to_pylist(), strict=True):
        if reason == _FAILED:
            name, _, message = str(detail).partition("\n")
            kind: Callable[[str], errors.ScaletrainError] = getattr(errors, name)
            raise kind(message)


@functools.lru_cache(maxsize=1)
def _configure_storage(root: str, options: tuple[tuple[str, str | int | float | bool], ...]) -> None:
    storage.configure(root, dict(options))


@functools.lru_cache(maxsize=1)
def _unpickled(pickled: bytes) -> "tuple[PreTrainedTokenizerBase, Leakage | None]":
    tokenizer, leakage = pickle.loads(pickled)
    return tokenizer, leakage


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """Keep Ray Data's account of its operators off the terminal, where our own progress is shown."""
    handlers = [each for each in logging.getLogger("ray.data").handlers if isinstance(each, logging.StreamHandler)]
    levels = [each.level for each in handlers]
    for handler in handlers:
        handler.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)

"""Corpora become tokenised documents: files are read, conversations cleaned and encoded, row by row accounted for.

Every row of a corpus gives one row of the tables yielded here, in whatever order: a document, or the reason why there
is none. With Ray the work is Ray Data tasks (a big file is one reading task, its conversations many encoding tasks);
without, the same functions run in this process, where a breakpoint works.
"""

import functools
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import xxhash

from scaletrain import errors, ray_cluster, storage
from scaletrain.config import Corpus, DataSection, StorageSection
from scaletrain.data.chat_template import Encoded, encode
from scaletrain.data.cleaning import Step, clean, load_steps
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.data.formats import BAD_ROW, SourceFile, read_file
from scaletrain.ray_waiting import Demand, find_candidates, wait_for_places
from scaletrain.stop_request import StopRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILE: dict[str, pa.DataType] = {
    "corpus": pa.int32(),
    "file": pa.int32(),
    "url": pa.string(),
    "name": pa.string(),
    "size_bytes": pa.int64(),
    "version": pa.string(),
}
# Where a row stood (corpus, file of the corpus, row of the file), and why it gave no document; null where it did.
_RECORD: dict[str, pa.DataType] = {
    "corpus": pa.int32(),
    "file": pa.int32(),
    "row": pa.int64(),
    "source": pa.string(),
    "reason": pa.string(),
    "detail": pa.string(),
}
_CONVERSATIONS = pa.schema({**_RECORD, "roles": pa.list_(pa.string()), "contents": pa.list_(pa.string())})
# key: a hash of what is said, equal for equal conversations. supervised: 0 or 1. Empty where there is no document.
DOCUMENTS = pa.schema(
    {
        **_RECORD,
        "key": pa.binary(16),
        "input_ids": pa.large_list(pa.int32()),
        "supervised": pa.large_list(pa.uint8()),
        "turn_starts": pa.large_list(pa.int32()),
    }
)
_FAILED = "failed"
_READ_TASK_BYTES = 16 * 2**20
_READ_TASK_FILES = 64
_ENCODE_TASK_ROWS = 256
# Half a core each: a task that reads waits half of its time, and on one core it must not keep encoding out.
_TASK_CPUS = 0.5
_STALLED_AFTER_S = 1800.0


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


def tokenise(
    section: DataSection,
    files: Sequence[Sequence[SourceFile]],
    *,
    storage_section: StorageSection,
    tokenizer: "PreTrainedTokenizerBase",
    use_ray: bool,
) -> Iterator[pa.Table]:
    """Yield tables of DOCUMENTS, a row for every row of the corpora; `files` are those of each corpus.

    A corpus's `limit` is applied to each of its files; the caller, who knows the order, applies it to the whole.
    Raises DataError, StorageError and ConfigError of the tasks as they are; with Ray, which must be initialised,
    ClusterError too, as where nothing comes on for half an hour.
    """
    tasks = _read_tasks(files)
    if use_ray:
        yield from _tokenise_with_ray(tasks, section, storage_section, tokenizer)
        return
    steps = load_steps(section)
    for task in tasks:
        for conversations in _read(task, section.corpora, max_bad_rows=section.max_bad_rows):
            yield _encode(conversations, steps, tokenizer)


# --- The two steps ------------------------------------------------------------------------------------------------


def _read(task: pa.Table, corpora: Sequence[Corpus], *, max_bad_rows: int) -> Iterator[pa.Table]:
    """Yield a task's files as tables of _CONVERSATIONS; a file with too many unreadable rows is not read to its end."""
    rows: list[dict[str, object]] = []
    for entry in task.to_pylist():
        corpus = corpora[entry["corpus"]]
        file = SourceFile(entry["url"], entry["name"], entry["size_bytes"], entry["version"])
        taken = bad_rows = 0
        for number, item in enumerate(read_file(file, corpus=corpus)):
            row = {"corpus": entry["corpus"], "file": entry["file"], "row": number, "source": item.source}
            if isinstance(item, Conversation):
                row |= {"roles": [turn.role for turn in item.turns], "contents": [turn.content for turn in item.turns]}
            else:
                row |= {"reason": item.reason, "detail": item.detail}
            rows.append(row)
            if len(rows) == _ENCODE_TASK_ROWS:
                yield pa.Table.from_pylist(rows, schema=_CONVERSATIONS)
                rows = []
            is_bad = row.get("reason") == BAD_ROW
            taken, bad_rows = taken + (not is_bad), bad_rows + is_bad
            if taken == corpus.limit or bad_rows > max_bad_rows:
                break
    if rows:
        yield pa.Table.from_pylist(rows, schema=_CONVERSATIONS)


def _encode(conversations: pa.Table, steps: Sequence[Step], tokenizer: "PreTrainedTokenizerBase") -> pa.Table:
    """Clean and encode a table of _CONVERSATIONS; what is dropped keeps its row, with the reason."""
    rows = conversations.to_pylist()
    nothing = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros(0, np.int32))
    keys: list[bytes | None] = [None] * len(rows)
    documents = [nothing] * len(rows)
    for i, row in enumerate(rows):
        if row["reason"] is not None:
            continue
        turns = tuple(Turn(role, text) for role, text in zip(row["roles"], row["contents"], strict=True))
        try:
            conversation = clean(Conversation(turns, source=row["source"]), steps)
            documents[i] = encode(conversation, tokenizer)
            keys[i] = xxhash.xxh3_128_digest(orjson.dumps(conversation.messages()))
        except Drop as drop:
            row["reason"], row["detail"] = drop.reason, drop.detail
    arrays: list[pa.Array[Any]] = [pa.array([row[name] for row in rows], kind) for name, kind in _RECORD.items()]
    arrays.append(pa.array(keys, DOCUMENTS.field("key").type))
    arrays.append(_list_array([each.input_ids for each in documents]))
    arrays.append(_list_array([each.supervised.view(np.uint8) for each in documents]))
    arrays.append(_list_array([each.turn_starts for each in documents]))
    return pa.Table.from_arrays(arrays, schema=DOCUMENTS)


def _read_tasks(files: Sequence[Sequence[SourceFile]]) -> list[pa.Table]:
    """Group files into reading tasks, in order: small ones share a task."""
    tasks: list[list[dict[str, object]]] = []
    size_bytes = 0
    for corpus, of_corpus in enumerate(files):
        for number, file in enumerate(of_corpus):
            size_bytes += file.size_bytes
            if not tasks or size_bytes > _READ_TASK_BYTES or len(tasks[-1]) == _READ_TASK_FILES:
                tasks.append([])
                size_bytes = file.size_bytes
            tasks[-1].append({"corpus": corpus, "file": number, **asdict(file)})
    return [pa.Table.from_pylist(task, schema=pa.schema(_FILE)) for task in tasks]


def _list_array(values: Sequence[npt.NDArray[Any]]) -> "pa.Array[Any]":
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in values])])
    flat: pa.Array[Any] = pa.array(np.concatenate(values))
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)


# --- The same in Ray Data tasks -----------------------------------------------------------------------------------


def _tokenise_with_ray(
    tasks: Sequence[pa.Table],
    section: DataSection,
    storage_section: StorageSection,
    tokenizer: "PreTrainedTokenizerBase",
) -> Iterator[pa.Table]:
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    read = functools.partial(_read_in_task, section=section, storage_section=storage_section)
    encode_ = functools.partial(_encode_in_task, section=section, pickled_tokenizer=pickle.dumps(tokenizer))
    how: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None, "num_cpus": _TASK_CPUS}
    with _quiet_ray_data():
        # `from_arrow` would run a task and wait for it here, where nothing limits how long.
        dataset = ray.data.from_blocks(list(tasks)).map_batches(read, **how)
        dataset = dataset.repartition(target_num_rows_per_block=_ENCODE_TASK_ROWS)
        dataset = dataset.map_batches(encode_, **how)
        dataset.context.enable_progress_bars = False
        dataset.context.execution_no_progress_timeout_s = _STALLED_AFTER_S
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                table = cast(pa.Table, batch)
                _raise_failure(table)
                yield table.select(DOCUMENTS.names).cast(DOCUMENTS)
        except RayError as exc:
            raise errors.ClusterError(f"tokenising failed in Ray: {exc}") from exc
        except ExecutionTimeoutError as exc:
            raise errors.ClusterError(
                f"tokenising made no progress for {_STALLED_AFTER_S / 60:.0f} minutes: its machines were lost or are "
                "taken, and others do not come (`scaletrain status --cluster FILE` says why), or a cleaning step hangs"
            ) from exc


def _read_in_task(task: pa.Table, *, section: DataSection, storage_section: StorageSection) -> Iterator[pa.Table]:
    _configure_storage(storage_section.root, tuple(sorted(storage_section.options.items())))
    try:
        yield from _read(task, section.corpora, max_bad_rows=section.max_bad_rows)
    except errors.ScaletrainError as exc:
        yield _failure(exc)


def _encode_in_task(conversations: pa.Table, *, section: DataSection, pickled_tokenizer: bytes) -> pa.Table:
    try:
        return _encode(conversations, load_steps(section), _unpickled(pickled_tokenizer))
    except errors.ScaletrainError as exc:
        return _encode(_failure(exc), [], _unpickled(pickled_tokenizer))


def _failure(error: errors.ScaletrainError) -> pa.Table:
    """Send an error as a row: raised in a task, it would come out wrapped, and after pages of Ray's own tracebacks."""
    row = {"corpus": 0, "file": 0, "row": 0, "reason": _FAILED, "detail": f"{type(error).__name__}\n{error}"}
    return pa.Table.from_pylist([row], schema=_CONVERSATIONS)


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
def _unpickled(pickled_tokenizer: bytes) -> "PreTrainedTokenizerBase":
    tokenizer: PreTrainedTokenizerBase = pickle.loads(pickled_tokenizer)
    return tokenizer


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

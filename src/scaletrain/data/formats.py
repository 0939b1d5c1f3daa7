"""The formats of corpora: each is a plain function that reads one open file and yields its conversations in order.

    messages     JSON lines (or one JSON array) of OpenAI's {"messages": [...]} or ShareGPT's {"conversations": [...]}
    chitchat     the JSON file of the package chitchat-dataset: two people, the first to speak is the user
    chatterbot   the YAML files of the package chatterbot-corpus: lists of lines, user and assistant in turn
    my_package.module:read_row      your own function dict -> Conversation, called with each row of JSON lines

A row that gives no conversation is yielded as Rejected, never skipped in silence. A file that cannot be parsed as a
whole is a DataError: nobody knows how much of it would be lost. Files ending in .gz and .zst are read as they are.
A file is read as a stream, but for a JSON array, chitchat and chatterbot, which are parsed in memory.
"""

import difflib
import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Literal, cast

import orjson
import xxhash

from scaletrain import storage
from scaletrain.config import Corpus
from scaletrain.data.conversation import Conversation, Drop, Turn, from_messages
from scaletrain.data.user_function import load_function
from scaletrain.errors import ConfigError, DataError, ScaletrainError

BAD_ROW = "bad_row"
_PACKAGE = "package:"
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_FOLDER_SUFFIXES = {"chitchat": (".json",), "chatterbot": (".yml", ".yaml")}
_COMPRESSION: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that gave no conversation: malformed (`reason` is BAD_ROW), or sound and of no use here."""

    source: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a corpus; `name` is how messages call it, and does not depend on where a package is installed."""

    url: str
    name: str
    size_bytes: int
    version: str


Item = Conversation | Rejected
Format = Callable[[io.BufferedReader, str], Iterator[Item]]  # (file, its name) -> its rows


# --- Corpora ------------------------------------------------------------------------------------------------------


def list_files(corpus: Corpus) -> list[SourceFile]:
    """List a corpus's files in a stable order; DataError where there are none."""
    find_format(corpus.format)
    if corpus.source.startswith(_PACKAGE):
        files = _package_files(corpus.source)
    else:
        url = storage.absolute(corpus.source)
        files = [SourceFile(each.url, each.url, each.size_bytes, each.version) for each in storage.glob(url)]
        if not _is_glob(url) and [each.url for each in files] != [url]:  # a folder: only what looks like the format
            suffixes = _FOLDER_SUFFIXES.get(corpus.format, _JSON_SUFFIXES)
            files = [each for each in files if _bare_name(each.name).endswith(suffixes)]
    if not files:
        raise DataError(f"data.corpora: nothing found at {corpus.source}; check the path, or the glob's wildcards")
    return files


def read_file(file: SourceFile, *, corpus: Corpus) -> Iterator[Item]:
    """Yield a file's conversations, and its rejected rows, in the order of the file.

    Raises DataError where the file as a whole cannot be read or parsed.
    """
    name = corpus.name or corpus.format
    read = find_format(corpus.format)
    try:
        with _open(file) as stream:
            for item in read(stream, file.name):
                yield replace(item, corpus=name) if isinstance(item, Conversation) else item
    except OSError as exc:  # a compressed file that is damaged or cut short; storage's errors are ours already
        raise DataError(f"{file.name}: cannot be read to its end ({exc}); fetch or make the file again") from exc


def read_conversations(corpus: Corpus, *, max_bad_rows: int) -> Iterator[Conversation]:
    """Yield a corpus's first `limit` conversations in order; DataError beyond `max_bad_rows` unreadable rows."""
    bad_rows: list[str] = []
    taken = 0
    for file in list_files(corpus):
        for item in read_file(file, corpus=corpus):
            if isinstance(item, Conversation):
                yield item
            elif item.reason == BAD_ROW:
                bad_rows.append(f"{item.source}: {item.detail}")
                if len(bad_rows) > max_bad_rows:
                    raise too_many_bad_rows(bad_rows, max_bad_rows=max_bad_rows)
                continue
            taken += 1
            if taken == corpus.limit:
                return


def too_many_bad_rows(examples: Sequence[str], *, max_bad_rows: int) -> DataError:
    """Return the error for more unreadable rows than data.max_bad_rows; `examples` are file:line and the cause."""
    shown = "".join(f"\n  {example}" for example in examples[:3])
    return DataError(
        f"more than data.max_bad_rows={max_bad_rows} rows cannot be read; "
        f"correct the dump, check data.corpora's format, or raise the limit. The first ones:{shown}"
    )


def find_format(name: str) -> Format:
    """Return the function for a format's name; ConfigError where there is none."""
    if ":" in name:
        return _user_format(name)
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(FORMATS)}"
        raise ConfigError(f"data.corpora: unknown format {name}; {hint} (your own: my_package.module:read_row)")
    return FORMATS[name]


# --- Formats ------------------------------------------------------------------------------------------------------


def read_messages(file: io.BufferedReader, name: str) -> Iterator[Item]:
    """Read rows of {"messages": [...]} or {"conversations": [...]}; a row may also be the list itself."""

    def parse(row: object) -> Conversation:
        if isinstance(row, dict):
            keys = [key for key in ("messages", "conversations") if key in row]
            if not keys:
                raise DataError(f"no messages and no conversations, only {', '.join(row) or 'nothing'}")
            return from_messages(row[keys[0]])
        return from_messages(row)

    return _json_rows(file, name, parse)


def read_chitchat(file: io.BufferedReader, name: str) -> Iterator[Item]:
    """Read {id: {"messages": [[{text, sender, timestamp}, ...], ...]}}; what one sender says in a row is one turn."""
    dialogues = _load_json(file, name)
    if not isinstance(dialogues, dict):
        raise DataError(f"{name}: not a chitchat file: expected an object of dialogues")
    for key, dialogue in dialogues.items():
        yield _parsed(_chitchat_dialogue, dialogue, f"{name}:{key}")


def read_chatterbot(file: io.BufferedReader, name: str) -> Iterator[Item]:
    """Read {conversations: [[line, line, ...], ...]}; every scalar is text, also `no`, `1` and `null`."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        document = yaml.load(file, Loader=loader)
    except yaml.YAMLError as exc:
        raise DataError(f"{name}: not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("conversations"), list):
        raise DataError(f"{name}: not a chatterbot file: it has no list of conversations")
    for number, lines in enumerate(document["conversations"], start=1):
        yield _parsed(_chatterbot_lines, lines, f"{name}:conversation {number}")


FORMATS: dict[str, Format] = {
    "messages": read_messages,
    "chitchat": read_chitchat,
    "chatterbot": read_chatterbot,
}


def _user_format(name: str) -> Format:
    read_row = load_function(name, setting="data.corpora")

    def parse(row: object) -> Conversation:
        try:
            conversation = read_row(row)
        except (Drop, ScaletrainError):
            raise
        except Exception as exc:  # one row that the user's function cannot take is a bad row like any other
            raise DataError(f"{name} raised {type(exc).__name__}: {exc}") from exc
        if not isinstance(conversation, Conversation):
            raise ConfigError(
                f"data.corpora: {name} returned {type(conversation).__name__}; it must return a "
                "scaletrain.data.conversation.Conversation, or raise its Drop"
            )
        return conversation

    return lambda file, file_name: _json_rows(file, file_name, parse)


def _chitchat_dialogue(dialogue: object) -> Conversation:
    if not isinstance(dialogue, dict) or not isinstance(dialogue.get("messages"), list):
        raise DataError("no list of messages")
    utterances = []
    for run in dialogue["messages"]:
        for utterance in run if isinstance(run, list) else [None]:
            if not isinstance(utterance, dict) or not isinstance(utterance.get("text"), str):
                raise DataError("an utterance without text")
            utterances.append((str(utterance.get("sender")), utterance["text"]))
    senders = list(dict.fromkeys(sender for sender, _ in utterances))
    if len(senders) > 2:
        raise Drop("more_than_two_speakers")
    turns = []
    for sender, run in groupby(utterances, key=lambda each: each[0]):
        text = "\n".join(text for _, text in run if text.strip())
        turns.append(Turn("user" if sender == senders[0] else "assistant", text))
    return Conversation(tuple(turns))


def _chatterbot_lines(lines: object) -> Conversation:
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise DataError("a conversation must be a list of lines")
    return Conversation(tuple(Turn("assistant" if i % 2 else "user", line) for i, line in enumerate(lines)))


# --- Rows ---------------------------------------------------------------------------------------------------------


def _json_rows(file: io.BufferedReader, name: str, parse: Callable[[object], Conversation]) -> Iterator[Item]:
    """Read JSON lines, or one array in a file that is not named .jsonl; blank lines are no rows."""
    if file.peek(3).startswith(b"\xef\xbb\xbf"):
        file.read(3)
    if not _bare_name(name).endswith((".jsonl", ".ndjson")) and file.peek(64).lstrip().startswith(b"["):
        rows = _load_json(file, name)
        assert isinstance(rows, list)
        for number, row in enumerate(rows, start=1):
            yield _parsed(parse, row, f"{name}:row {number}")
        return
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        source = f"{name}:{number}"
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            yield Rejected(source, BAD_ROW, f"not JSON: {exc}")
            continue
        yield _parsed(parse, row, source)


def _parsed(parse: Callable[[object], Conversation], row: object, source: str) -> Item:
    try:
        conversation = replace(parse(row), source=source)
        for turn in conversation.turns:
            turn.content.encode()
        return conversation
    except UnicodeEncodeError as exc:
        return Rejected(source, BAD_ROW, f"text that is not valid Unicode: {exc.reason}")
    except Drop as drop:
        return Rejected(source, drop.reason, drop.detail)
    except DataError as exc:
        return Rejected(source, BAD_ROW, str(exc))


def _load_json(file: BinaryIO, name: str) -> object:
    try:
        return orjson.loads(file.read())
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{name}:{exc.lineno}: not JSON: {exc}; fetch or make the file again") from exc


# --- Files --------------------------------------------------------------------------------------------------------


@contextmanager
def _open(file: SourceFile) -> Iterator[io.BufferedReader]:
    codec = _COMPRESSION.get(Path(file.name).suffix)
    with storage.open_read(file.url) as stream:
        if codec is None:
            yield io.BufferedReader(cast(io.RawIOBase, stream))
        else:
            import pyarrow

            # Unlike zstandard's own reader, Arrow's says so where a stream is cut short.
            file_of_arrow = pyarrow.PythonFile(cast(io.IOBase, stream), mode="r")
            yield io.BufferedReader(cast(io.RawIOBase, pyarrow.CompressedInputStream(file_of_arrow, codec)))


def _package_files(source: str) -> list[SourceFile]:
    """Find files inside an installed package, without importing it; their version is a hash of their bytes."""
    package, _, pattern = source.removeprefix(_PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{source}: the package {package} is not installed; pip install {package.replace('_', '-')}")
    root = Path(next(iter(spec.submodule_search_locations)))
    files = []
    for path in sorted(root.glob(pattern)) if pattern else []:
        if path.is_file():
            name = f"{_PACKAGE}{package}/{path.relative_to(root).as_posix()}"
            data = path.read_bytes()
            files.append(SourceFile(str(path), name, len(data), xxhash.xxh3_128_hexdigest(data)))
    return files


def _is_glob(url: str) -> bool:
    return any(character in url for character in "*?[")


def _bare_name(name: str) -> str:
    """The name without the suffix of a compression."""
    return name.removesuffix(Path(name).suffix) if Path(name).suffix in _COMPRESSION else name

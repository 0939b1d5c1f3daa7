"""The formats of corpora: each is a plain function that reads files as they were downloaded and yields conversations.

    messages        JSON lines (or one array) of OpenAI's {"messages": [...]} or ShareGPT's {"conversations": [...]}
    alpaca          rows of {"instruction", "input", "output"}
    oasst           Open Assistant's trees, or its messages
    cornell         Cornell's movie dialogues; convokit: any corpus of ConvoKit's
    csv, parquet    tables, with `columns`; hf_disk: a dataset saved by Hugging Face's datasets
    twcs            customer support on Twitter; x_archive: the archives that X gives its users
    reddit          dumps of submissions and comments
    stack_exchange  Posts.xml and Comments.xml
    text, chat_log  an utterance a line, an empty line between dialogues
    whatsapp        the text file of an exported chat
    chitchat, chatterbot    the files of two packages on PyPI
    preferences     pairs of answers, as `scaletrain judge export` and TRL have them; JSON lines or Parquet
    my_package.module:read_row      your own function dict -> Conversation, called with each row of JSON lines

A row that gives no conversation is yielded as Rejected, never skipped in silence. A file that cannot be parsed as a
whole is a DataError: nobody knows how much of it would be lost. Files ending in .gz, .bz2, .xz and .zst are read as
they are. Formats whose rows refer to one another read the files of a corpus together, in one task.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from scaletrain.config_data import Corpus
from scaletrain.config_dpo import PAIRS_FORMAT
from scaletrain.data.conversation import Conversation
from scaletrain.data.formats import (
    columns,
    json_rows,
    movies,
    open_assistant,
    packages,
    plain_text,
    preferences,
    reddit,
    stack_exchange,
    tables,
    tweets,
    whatsapp,
)
from scaletrain.data.formats.files import SourceFile, find_files, with_versions_of
from scaletrain.data.formats.items import BAD_ROW, SAVE_AS_UTF8, Item, Rejected
from scaletrain.errors import ConfigError, DataError, Problems

__all__ = [
    "BAD_ROW",
    "FORMATS",
    "Format",
    "Item",
    "Rejected",
    "SourceFile",
    "check_settings",
    "find_format",
    "hold_pairs",
    "list_files",
    "read_conversations",
    "read_files",
    "reads_together",
    "remedy",
    "too_many_bad_rows",
]

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_OPTIONS = ("columns", "min_score")


@dataclass(frozen=True, slots=True)
class Format:
    """How a format reads.

    suffixes: which files of a folder. together: the files refer to one another and are read in one call. options: the
    settings of a corpus that it knows. licence: what the dump is known to be under, where neither a row nor the user
    says otherwise. beside: the name of a file in the folder of others that is read with them, where it is there.
    """

    read: Callable[[Sequence[SourceFile], Corpus], Iterator[Item]]
    suffixes: tuple[str, ...]
    together: bool = False
    options: tuple[str, ...] = ()
    licence: str = ""
    beside: str = ""


FORMATS: dict[str, Format] = {
    "messages": Format(json_rows.read_messages, _JSON_SUFFIXES),
    "alpaca": Format(json_rows.read_alpaca, _JSON_SUFFIXES),
    "oasst": Format(open_assistant.read_oasst, _JSON_SUFFIXES, together=True, licence="Apache-2.0"),
    "cornell": Format(movies.read_cornell, (movies.LINES, movies.CONVERSATIONS), together=True),
    "convokit": Format(movies.read_convokit, ("utterances.jsonl",), together=True),
    "csv": Format(tables.read_csv, (".csv", ".tsv", ".tab"), options=("columns",)),
    "parquet": Format(tables.read_parquet, (".parquet",), options=("columns",)),
    "hf_disk": Format(tables.read_hf_disk, (".arrow",), options=("columns",), beside=tables.INFO),
    "twcs": Format(tweets.read_twcs, (".csv",), together=True, licence="CC-BY-NC-SA-4.0"),
    "x_archive": Format(tweets.read_x_archive, tweets.ARCHIVE_FILES, together=True, beside=tweets.ACCOUNT),
    "reddit": Format(reddit.read_reddit, _JSON_SUFFIXES, together=True, options=("min_score",)),
    "stack_exchange": Format(
        stack_exchange.read_stack_exchange,
        (stack_exchange.POSTS, stack_exchange.COMMENTS),
        together=True,
        options=("min_score",),
    ),
    "text": Format(plain_text.read_text, (".txt",)),
    "chat_log": Format(plain_text.read_chat_log, (".txt", ".log")),
    "whatsapp": Format(whatsapp.read_whatsapp, (".txt",)),
    "chitchat": Format(packages.read_chitchat, (".json",), licence="MIT"),
    "chatterbot": Format(packages.read_chatterbot, (".yml", ".yaml"), licence="BSD-3-Clause"),
    PAIRS_FORMAT: Format(preferences.read_preferences, (*_JSON_SUFFIXES, preferences.PARQUET)),
}


def check_settings(corpora: Sequence[Corpus]) -> None:
    """Raise ConfigError with all that is wrong with the settings of corpora; no dump is opened."""
    problems = Problems()
    for number, corpus in enumerate(corpora):
        with problems.collecting():
            problems += [f"data.corpora.{number}.{each}" for each in _problems(corpus, find_format(corpus.format))]
    with problems.collecting():
        hold_pairs(corpora)
    problems.raise_any()


def list_files(corpus: Corpus) -> list[SourceFile]:
    """List a corpus's files in a stable order; DataError where there are none."""
    format_ = find_format(corpus.format)
    files = find_files(corpus.source, suffixes=format_.suffixes)
    return with_versions_of(format_.beside, files) if format_.beside else files


def hold_pairs(corpora: Sequence[Corpus]) -> bool:
    """Say whether corpora have pairs of answers; ConfigError where some have and some have not."""
    have = [corpus.format == PAIRS_FORMAT for corpus in corpora]
    if any(have) and not all(have):
        raise ConfigError(
            f"data.corpora: pairs of answers (format: {PAIRS_FORMAT}) and conversations are not learned from in one "
            "run; give each a run of its own"
        )
    return all(have)


def reads_together(corpus: Corpus) -> bool:
    """Say whether all files of a corpus have to be given to `read_files` at once."""
    return find_format(corpus.format).together


def read_files(files: Sequence[SourceFile], *, corpus: Corpus) -> Iterator[Item]:
    """Yield the conversations of files, and their rejected rows, in an order that is the same for the same files.

    Raises DataError where a file as a whole cannot be read or parsed, and StorageError where rows that refer to one
    another find no place on the local disk.
    """
    name = corpus.name or corpus.format
    format_ = find_format(corpus.format)
    try:
        for item in format_.read(files, corpus):
            if isinstance(item, Conversation):
                licence = item.licence or corpus.licence or format_.licence
                yield replace(item, corpus=name, licence=licence)
            else:
                yield item
    except OSError as exc:  # storage's errors are ours already
        raise DataError(f"{exc.filename or files[0].name}: cannot be read to its end ({exc})") from exc


def read_conversations(
    corpus: Corpus, *, max_bad_rows: int, on_rejected: Callable[[Rejected], None] | None = None
) -> Iterator[Conversation]:
    """Yield a corpus's first `limit` conversations in order; DataError beyond `max_bad_rows` unreadable rows.

    Rows that give no conversation, unreadable or of no use, do not count towards the limit; `on_rejected` is told them.
    """
    bad_rows: list[str] = []
    taken = 0
    files = list_files(corpus)
    for unit in [files] if reads_together(corpus) else [[file] for file in files]:
        for item in read_files(unit, corpus=corpus):
            if isinstance(item, Conversation):
                yield item
                taken += 1
                if taken == corpus.limit:
                    return
                continue
            if on_rejected is not None:
                on_rejected(item)
            if item.reason == BAD_ROW:
                bad_rows.append(f"{item.source}: {item.detail}")
                if len(bad_rows) > max_bad_rows:
                    raise too_many_bad_rows(bad_rows, max_bad_rows=max_bad_rows)


def too_many_bad_rows(examples: Sequence[str], *, max_bad_rows: int) -> DataError:
    """Return the error for more unreadable rows than data.max_bad_rows; `examples` are file:line and the cause."""
    shown = "".join(f"\n  {example}" for example in examples[:3])
    return DataError(
        f"more than data.max_bad_rows={max_bad_rows} rows cannot be read; "
        f"{remedy(examples)}, or raise the limit. The first ones:{shown}"
    )


def remedy(examples: Sequence[str]) -> str:
    """Return what to do about rows that cannot be read; `examples` are as for `too_many_bad_rows`."""
    if any("UTF-8" in example for example in examples):
        return f"the dump is in another encoding: {SAVE_AS_UTF8}"
    return "correct the dump, check data.corpora's format"


def find_format(name: str) -> Format:
    """Return a format by its name; ConfigError where there is none."""
    if ":" in name:
        return Format(json_rows.user_format(name), _JSON_SUFFIXES)
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(FORMATS)}"
        raise ConfigError(f"data.corpora: unknown format {name}; {hint} (your own: my_package.module:read_row)")
    return FORMATS[name]


def _problems(corpus: Corpus, format_: Format) -> list[str]:
    found = [
        f"{name}: the format {corpus.format} has no such setting (it belongs to {_formats_with(name)}); remove it"
        for name in _OPTIONS
        if getattr(corpus, name) not in (None, {}) and name not in format_.options
    ]
    return found + (columns.problems(corpus.columns) if "columns" in format_.options else [])


def _formats_with(option: str) -> str:
    return ", ".join(name for name, each in FORMATS.items() if option in each.options)

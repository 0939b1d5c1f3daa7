"""The format preferences: two answers to one prompt, of which one was preferred, as `scaletrain judge export` and TRL
have them (https://huggingface.co/docs/trl/dataset_formats#preference).

    {"prompt": [messages], "chosen": [message], "rejected": [message]}
    {"chosen": [messages], "rejected": [messages]}                       the prompt is what they begin with
    {"prompt": "...", "chosen": "...", "rejected": "..."}                the prompt is what the user says

Whatever else a row has is not looked at. What differs is one answer: longer ways that a conversation could have gone
are left out, and counted.
"""

from collections.abc import Iterator, Sequence

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation, Drop, Turn, from_messages
from scaletrain.data.formats.files import SourceFile, bare_name
from scaletrain.data.formats.items import Item, Rejected, parsed
from scaletrain.data.formats.json_rows import json_rows
from scaletrain.data.formats.tables import TableRow, parquet_rows, parquet_table
from scaletrain.errors import DataError

PARQUET = ".parquet"
_COLUMNS = ("prompt", "chosen", "rejected", "id", "tools")


def read_preferences(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read rows of {"prompt", "chosen", "rejected"}, as JSON lines or Parquet."""
    for file in files:
        rows = _parquet_rows(file) if bare_name(file.name).endswith(PARQUET) else json_rows(file)
        for each in rows:
            yield each if isinstance(each, Rejected) else parsed(_parse, each[1], each[0])


def _parquet_rows(file: SourceFile) -> Iterator[TableRow]:
    with parquet_table(file) as table:
        yield from parquet_rows(file, table, [name for name in table.schema_arrow.names if name in _COLUMNS])


def _parse(row: object) -> Conversation:
    if not isinstance(row, dict):
        raise DataError("not an object")
    if missing := [name for name in ("chosen", "rejected") if row.get(name) is None]:
        raise DataError(f"no {' and no '.join(missing)}, only {', '.join(map(str, row)) or 'nothing'}")
    if row.get("tools"):
        raise Drop("tools_not_supported")
    chosen, rejected = (_turns(row, name) for name in ("chosen", "rejected"))
    if {chosen[-1].role, rejected[-1].role} != {"assistant"}:
        raise Drop("pair_without_answers")
    if chosen[:-1] != rejected[:-1]:
        raise Drop("more_than_one_answer_differs")
    if chosen == rejected:
        raise Drop("answers_are_equal")
    name = row.get("id")
    return Conversation(chosen, id=str(name) if isinstance(name, (str, int)) else "", rejected=rejected[-1].content)


def _turns(row: dict[str, object], name: str) -> tuple[Turn, ...]:
    """The prompt and one of the two answers; an answer that does not begin with the assistant has its prompt in it."""
    answer, prompt = row[name], row.get("prompt")
    turns = (Turn("assistant", answer),) if isinstance(answer, str) else from_messages(answer).turns
    if turns[0].role != "assistant":
        return turns
    if isinstance(prompt, str):
        return Turn("user", prompt), *turns
    if prompt is None:
        raise DataError(f"no prompt, and {name} does not begin with what the user says")
    return *from_messages(prompt).turns, *turns

"""`scaletrain judge result | export | import`: what was voted, told and taken along."""

from pathlib import Path
from typing import Annotated, Any

import typer

from scaletrain.command import Json, examples, print_result, reported
from scaletrain.errors import ConfigError

app = typer.Typer()

ItemsFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help='what is judged: JSON lines as {"prompt": "...", "answers": {"MODEL": "...", "OTHER": "..."}}; '
        "`judge prepare` writes it",
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--votes",
        metavar="DATABASE",
        help="where the votes are: a file on this machine (FILE.votes.sqlite unless said otherwise) or "
        "postgresql://USER@HOST/DATABASE, the password from ~/.pgpass or PGPASSWORD",
    ),
]
LeaveOut = Annotated[
    list[str] | None, typer.Option("--leave-out", metavar="JUDGE", help="do not count this judge; may be repeated")
]


@app.command("result", epilog=examples("scaletrain judge result judging.jsonl --html result.html"))
@reported
def result(
    file: ItemsFile,
    votes: Database = None,
    leave_out: LeaveOut = None,
    html: Annotated[str | None, typer.Option("--html", metavar="URL", help="write a page to look at")] = None,
    markdown: Annotated[str | None, typer.Option("--markdown", metavar="URL", help="write the tables")] = None,
    as_json: Json = False,
) -> None:
    """Tell who is preferred, and how sure that is.

    Also whether judges agree, and how many more votes decide it. May be called as often as you like while people vote:
    stopping when it says "decided" errs in at most 5 of 100 judgings of equal models.
    """
    from scaletrain import storage
    from scaletrain.judge.page import result_page
    from scaletrain.judge.result import result_of
    from scaletrain.judge.summary import display
    from scaletrain.judge.summary import markdown as as_markdown

    items, store = _opened(file, votes)
    cast = store.votes()
    _check_judges(leave_out or [], {vote.judge for vote in cast})
    found = result_of(items, cast, store.feedback(), leave_out=leave_out or [])
    if html is not None:
        storage.write_bytes(html, result_page(found))
    if markdown is not None:
        storage.write_text(markdown, as_markdown(found))
    print_result(found.record(), as_json=as_json, display=lambda: display(found))


@app.command(
    "export",
    epilog=examples(
        "scaletrain judge export judging.jsonl preferences.jsonl",
        "scaletrain judge export judging.jsonl s3://my-bucket/runs/my-run/evaluation/votes.jsonl --as votes",
    ),
)
@reported
def export(
    file: ItemsFile,
    dest: Annotated[str, typer.Argument(metavar="DEST", help="the file to write; any URL")],
    what: Annotated[str, typer.Option("--as", help="preferences (to train on) or votes (all that is known)")] = (
        "preferences"
    ),
    votes: Database = None,
    leave_out: LeaveOut = None,
) -> None:
    """Write the votes as pairs to learn from, or as they are.

    Pairs are for train.objective=dpo; TRL reads them too.
    """
    from scaletrain import storage
    from scaletrain.judge.preferences import lines, preferences

    if what not in ("preferences", "votes"):
        raise ConfigError(f"--as {what}: give preferences or votes")
    items, store = _opened(file, votes)
    cast = store.votes()
    _check_judges(leave_out or [], {vote.judge for vote in cast})
    kept = [vote for vote in cast if vote.judge not in (leave_out or []) and vote.pair in items.pairs]
    if what == "preferences":
        records = [each.record() for each in preferences(items, kept, store.feedback())]
    else:
        records = [vote.record() for vote in kept]
    storage.write_bytes(dest, lines(records))
    print(f"{dest}: {len(records):,} {what}")


@app.command("import", epilog=examples("scaletrain judge import judging.jsonl feedback.jsonl"))
@reported
def import_feedback(
    file: ItemsFile,
    feedback: Annotated[str, typer.Argument(metavar="FEEDBACK", help="the JSON lines that `scaletrain serve` wrote")],
    votes: Database = None,
) -> None:
    """Take in the thumbs that users gave a served model.

    They are shown beside the votes and exported with them. The same line is taken once.
    """
    from scaletrain.judge.feedback import read_feedback
    from scaletrain.judge.vote_store import VoteStore, database_beside

    check_installed()
    found = read_feedback(feedback)
    new = VoteStore(votes or database_beside(file)).add_feedback(found)
    print(f"{feedback}: {len(found):,} thumbs, {new:,} of them new")


def items_of(file: str, *, may_miss: bool) -> Any:
    """The items of a file; none where it is missing and may be."""
    from scaletrain import storage
    from scaletrain.judge.items import Items, read_items

    return Items(()) if may_miss and not storage.exists(file) else read_items(file)


def check_installed() -> None:
    """Raise ConfigError where a package is missing."""
    from importlib.util import find_spec

    missing = [name for name in ("httpx", "sqlalchemy", "starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"judge needs {', '.join(missing)}: pip install 'scaletrain[judge]'")


def _opened(file: str, votes: str | None) -> Any:
    """The items of a file and the store of their votes, which has to be there already."""
    from scaletrain.judge.items import Items
    from scaletrain.judge.vote_store import VoteStore, database_beside

    check_installed()
    database = votes or database_beside(file)
    is_there = "://" in database or Path(database).expanduser().is_file()
    items = items_of(file, may_miss=is_there)
    if not is_there:
        raise ConfigError(f"{database}: there are no votes yet; `scaletrain judge serve {file}` asks for them")
    store = VoteStore(database)
    asked = [each.pair.item for each in store.live()]
    every = Items(tuple({item.id: item for item in [*items.items, *asked]}.values()))
    if not every.pairs:
        raise ConfigError(f"{file}: there is no such file, and nothing was asked live; check the name")
    return every, store


def _check_judges(named: list[str], known: set[str]) -> None:
    problems = [
        f"--leave-out {name}: has not voted; there are {', '.join(sorted(known)) or 'no judges'}"
        for name in named
        if name not in known
    ]
    if problems:
        raise ConfigError(problems)

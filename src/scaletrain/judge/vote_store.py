"""The database that keeps the votes: SQLite by default, PostgreSQL by URL.

A vote is on disk when `save` returns (SQLite: write-ahead log with synchronous=FULL). A judge has one vote on a pair:
a second one replaces the first, and keeps its time. Any number of processes and threads may use one database.
"""

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from scaletrain import storage
from scaletrain.errors import ConfigError, StorageError
from scaletrain.judge.feedback import Feedback
from scaletrain.judge.items import LivePair, item_of
from scaletrain.judge.votes import Vote

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table


class VoteStore:
    """The votes in one database; every method opens what it needs and leaves nothing open.

    Raises StorageError where the database does not answer or is gone: nothing was written then.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)
        self._votes, self._feedback, self._settings, self._live = _tables()
        with self._connection() as connection:
            self._votes.metadata.create_all(connection)
        self.secret = self._keep_secret()

    def check(self) -> None:
        """Raise StorageError where the database does not answer."""
        with self._connection() as connection:
            connection.execute(self._settings.select())

    def save(self, vote: Vote) -> Vote:
        """Keep a vote, in place of an earlier one by the same judge on the same pair; returns it as it was kept."""
        table = self._votes
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        values = {**asdict(vote), "reasons": orjson.dumps(vote.reasons).decode(), "time": time, "revision": 0}
        insert = _insert(self._engine)(table).values(values)
        changed: dict[str, Any] = {
            name: insert.excluded[name] for name in values if name not in ("judge", "pair", "time")
        }
        changed["revision"] = table.c.revision + 1
        statement = insert.on_conflict_do_update(index_elements=["judge", "pair"], set_=changed).returning(*table.c)
        with self._connection() as connection:
            return _vote(connection.execute(statement).one())

    def votes(self) -> list[Vote]:
        """All votes, the oldest first."""
        with self._connection() as connection:
            rows = connection.execute(self._votes.select().order_by(self._votes.c.time, self._votes.c.judge))
            return [_vote(row) for row in rows]

    def vote_of(self, judge: str, pair: str) -> Vote | None:
        """What a judge said of a pair, or None."""
        table = self._votes
        with self._connection() as connection:
            row = connection.execute(table.select().where(table.c.judge == judge, table.c.pair == pair)).one_or_none()
        return None if row is None else _vote(row)

    def judged(self) -> list[tuple[str, str]]:
        """(judge, pair) of every vote, in the order of time."""
        columns = (self._votes.c.judge, self._votes.c.pair)
        with self._connection() as connection:
            rows = connection.execute(self._votes.select().with_only_columns(*columns).order_by(self._votes.c.time))
            return [(judge, pair) for judge, pair in rows]

    def add_feedback(self, found: Sequence[Feedback]) -> int:
        """Keep thumbs; returns how many were new."""
        with self._connection() as connection:
            before = self._count(connection, self._feedback)
            for each in found:
                messages = orjson.dumps(each.messages).decode()
                statement = _insert(self._engine)(self._feedback).values(
                    {**asdict(each), "id": each.id, "messages": messages}
                )
                connection.execute(statement.on_conflict_do_nothing())
            return self._count(connection, self._feedback) - before

    def feedback(self) -> list[Feedback]:
        """All thumbs, the oldest first."""
        with self._connection() as connection:
            rows = connection.execute(self._feedback.select().order_by(self._feedback.c.time, self._feedback.c.id))
            return [
                Feedback(row.time, row.model, tuple(orjson.loads(row.messages)), row.answer, row.vote, row.comment)
                for row in rows
            ]

    def add_live(self, asked: LivePair) -> None:
        """Keep a question and its two answers; the same one is kept once, with its latest sides."""
        values = {
            "pair": asked.pair.id,
            "judge": asked.judge,
            "left": asked.left,
            "right": asked.right,
            "item": orjson.dumps(asked.pair.item.record()).decode(),
        }
        insert = _insert(self._engine)(self._live).values(values)
        changed = {name: insert.excluded[name] for name in ("judge", "left", "right")}
        with self._connection() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["pair"], set_=changed))

    def live(self) -> list[LivePair]:
        """All questions that were asked live."""
        with self._connection() as connection:
            rows = connection.execute(self._live.select().order_by(self._live.c.pair)).all()
        return [LivePair(item_of(orjson.loads(row.item)).pairs[0], row.judge, row.left, row.right) for row in rows]

    def _keep_secret(self) -> bytes:
        """The random key of this database, made with it: judges' links and pairs' names on the page come from it."""
        table = self._settings
        with self._connection() as connection:
            statement = _insert(self._engine)(table).values(name="secret", value=secrets.token_hex(32))
            connection.execute(statement.on_conflict_do_nothing())
            return bytes.fromhex(connection.execute(table.select().where(table.c.name == "secret")).one().value)

    @staticmethod
    def _count(connection: "Connection", table: "Table") -> int:
        from sqlalchemy import func, select

        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    @contextmanager
    def _connection(self) -> Iterator["Connection"]:
        """A connection for one transaction, committed at the end."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as exc:
            cause = str(getattr(exc, "orig", None) or exc).strip().partition("\n")[0]
            raise StorageError(f"the database of votes does not answer ({self.shown}): {cause}") from exc

    @property
    def shown(self) -> str:
        """The database's URL without its password."""
        return self._engine.url.render_as_string() if "://" in self.url else self.url


def database_beside(items_url: str) -> str:
    """Where the votes on a file of items are kept unless said otherwise: a file beside it."""
    if not storage.is_local(items_url):
        name = items_url.rstrip("/").rpartition("/")[2]
        raise ConfigError(
            f"{items_url} is not on this machine, and a database has to be somewhere: give "
            f"--votes {name}.votes.sqlite, a file on a local disk, or --votes postgresql://USER@HOST/DATABASE"
        )
    return f"{storage.local_path(items_url)}.votes.sqlite"


def _vote(row: Any) -> Vote:
    values = dict(row._mapping)
    return Vote(**{**values, "reasons": tuple(orjson.loads(values["reasons"]))})


def _tables() -> tuple["Table", "Table", "Table", "Table"]:
    from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text

    metadata = MetaData()
    votes = Table(
        "judge_votes",
        metadata,
        Column("judge", String(80), primary_key=True),
        Column("pair", String(32), primary_key=True),
        Column("item", String(32), nullable=False),
        Column("left", Text, nullable=False),
        Column("right", Text, nullable=False),
        Column("choice", String(10), nullable=False),
        Column("reasons", Text, nullable=False),
        Column("note", Text, nullable=False),
        Column("seconds", Float, nullable=False),
        Column("time", String(40), nullable=False),
        Column("revision", Integer, nullable=False),
    )
    feedback = Table(
        "judge_feedback",
        metadata,
        Column("id", String(32), primary_key=True),
        Column("time", String(40), nullable=False),
        Column("model", Text, nullable=False),
        Column("messages", Text, nullable=False),
        Column("answer", Text, nullable=False),
        Column("vote", String(10), nullable=False),
        Column("comment", Text, nullable=False),
    )
    settings = Table(
        "judge_settings",
        metadata,
        Column("name", String(40), primary_key=True),
        Column("value", Text, nullable=False),
    )
    live = Table(
        "judge_live",
        metadata,
        Column("pair", String(32), primary_key=True),
        Column("judge", String(80), nullable=False),
        Column("left", Text, nullable=False),
        Column("right", Text, nullable=False),
        Column("item", Text, nullable=False),
    )
    return votes, feedback, settings, live


def _insert(engine: "Engine") -> Any:
    """The database's own insert, which knows what to do with a row that is there already."""
    from sqlalchemy.dialects import postgresql, sqlite

    return postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert


def _engine(url: str) -> "Engine":
    try:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool
    except ImportError as exc:
        raise ConfigError("votes need SQLAlchemy: pip install 'scaletrain[judge]'") from exc

    if "://" not in url:
        path = Path(url).expanduser().absolute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sqlite3.connect(path).close()
        except (OSError, sqlite3.Error) as exc:
            raise ConfigError(f"{url}: votes cannot be kept there ({exc}); choose another file with --votes") from exc
        # A connection each time, to a file that has to be there: one that was removed is noticed, not made anew.
        return create_engine("sqlite://", creator=lambda: _open_sqlite(path), poolclass=NullPool)
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres"):
        raise ConfigError(
            f"--votes {scheme}://...: give a file on this machine, which becomes an SQLite database, or "
            "postgresql://USER@HOST/DATABASE (the password from ~/.pgpass or PGPASSWORD)"
        )
    try:
        return create_engine(f"postgresql+psycopg://{rest}", pool_pre_ping=True)
    except ImportError as exc:
        raise ConfigError("votes in PostgreSQL need psycopg: pip install 'scaletrain[judge,postgresql]'") from exc


def _open_sqlite(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=10, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection

"""judge.vote_store: votes in SQLite and in PostgreSQL, durable, one a judge and pair."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from scaletrain.errors import ConfigError, StorageError
from scaletrain.judge.feedback import Feedback
from scaletrain.judge.vote_store import VoteStore, database_beside
from scaletrain.judge.votes import Vote

VOTE = Vote("Ana", "pair", "item", "base", "trained", "right", ("helpful", "safe"), "good; 'quoted' 你好", 3.5)


def test_a_vote_comes_back(database: str) -> None:
    """With the time at which it was kept, also in a store that is opened later."""
    kept = VoteStore(database).save(VOTE)
    assert replace(kept, time="") == VOTE
    assert kept.time.endswith("+00:00")
    store = VoteStore(database)
    assert store.votes() == [kept]
    assert store.judged() == [("Ana", "pair")]
    assert store.vote_of("Ana", "pair") == kept
    assert store.vote_of("Ben", "pair") is None


def test_a_second_vote_replaces_the_first(database: str) -> None:
    """The same judge and pair: the last counts, and it is known that there was another one."""
    store = VoteStore(database)
    first = store.save(VOTE)
    store.save(replace(VOTE, choice="tie", reasons=(), note=""))
    store.save(replace(VOTE, judge="Ben"))
    mine, other = sorted(store.votes(), key=lambda vote: vote.judge)
    assert (mine.choice, mine.reasons, mine.note, mine.revision) == ("tie", (), "", 1)
    assert mine.time == first.time
    assert (other.choice, other.revision) == ("right", 0)


def test_many_judges_vote_at_once(database: str) -> None:
    """No vote is lost, and none is there twice."""
    store = VoteStore(database)
    votes = [replace(VOTE, judge=f"judge {who}", pair=f"pair {number}") for number in range(12) for who in range(4)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.save, [*votes, *votes[:8]]))
    assert sorted(store.judged()) == sorted((vote.judge, vote.pair) for vote in votes)


def test_the_secret_is_made_once(database: str, tmp_path: Path) -> None:
    """Links stay good when the server starts again; another database has other ones."""
    assert VoteStore(database).secret == VoteStore(database).secret
    assert VoteStore(database).secret != VoteStore(str(tmp_path / "other.sqlite")).secret


def test_a_thumb_is_taken_once(database: str) -> None:
    """The same file may be imported again."""
    store = VoteStore(database)
    thumb = Feedback("2026-11-26T10:00:00+00:00", "m", ({"role": "user", "content": "Hi"},), "Hey", "up", "nice")
    assert store.add_feedback([thumb, replace(thumb, vote="down")]) == 2
    assert store.add_feedback([thumb]) == 0
    assert thumb in store.feedback() and len(store.feedback()) == 2


def test_what_save_returned_from_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL right after: the vote is in the file."""
    program = (
        "import os, signal, sys\n"
        "from scaletrain.judge.vote_store import VoteStore\n"
        "from scaletrain.judge.votes import Vote\n"
        "VoteStore(sys.argv[1]).save(Vote('Ana', 'p', 'i', 'a', 'b', 'tie'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = str(tmp_path / "votes.sqlite")
    done = subprocess.run([sys.executable, "-c", program, path], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    assert VoteStore(path).judged() == [("Ana", "p")]


def test_a_file_that_is_gone_is_an_error_not_a_new_file(tmp_path: Path) -> None:
    """Votes would be lost in it: the next one is refused, and goes in when the file is back."""
    path = tmp_path / "votes.sqlite"
    store = VoteStore(str(path))
    store.save(VOTE)
    path.rename(tmp_path / "away")
    with pytest.raises(StorageError, match="does not answer"):
        store.save(replace(VOTE, judge="Ben"))
    assert not path.exists()
    (tmp_path / "away").rename(path)
    store.save(replace(VOTE, judge="Ben"))
    assert len(store.votes()) == 2


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    """As in a log that others read."""
    with pytest.raises(StorageError) as caught:
        VoteStore("postgresql://judge:secret@127.0.0.1:1/votes")
    assert "127.0.0.1" in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://host/votes", "s3://bucket/votes.sqlite"])
def test_other_databases_are_refused(url: str) -> None:
    """With what to give instead."""
    with pytest.raises(ConfigError, match="postgresql://"):
        VoteStore(url)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Before anybody votes."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="another file"):
        VoteStore(str(tmp_path / "file" / "votes.sqlite"))


def test_the_database_lies_beside_the_items() -> None:
    """Unless they are in a bucket, which cannot hold one."""
    assert database_beside("a/judging.jsonl") == "a/judging.jsonl.votes.sqlite"
    with pytest.raises(ConfigError, match="--votes"):
        database_beside("s3://bucket/judging.jsonl")

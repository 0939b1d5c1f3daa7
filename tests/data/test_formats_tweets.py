import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import conversations, read, rejects, roles, texts

from scaletrain.data.formats.tweets import find_first
from scaletrain.errors import DataError

Tweet = tuple[int, str, bool, str, str, int | str]  # id, author, inbound, text, replies, parent


def write_twcs(path: Path, tweets: Sequence[Tweet]) -> Path:
    """The CSV of Customer Support on Twitter."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        file.write("tweet_id,author_id,inbound,created_at,text,response_tweet_id,in_response_to_tweet_id\n")
        for number, author, inbound, text, replies, parent in tweets:
            time = f"Tue Oct 31 22:10:{number % 60:02} +0000 2017"
            writer.writerow([number, author, inbound, time, text, replies, parent])
    return path


def write_archive(folder: Path, account: str, tweets: Sequence[tuple[str, str, str]]) -> None:
    """The files of an X archive that are read; a tweet is (id, text, the id it replies to)."""
    folder.mkdir(parents=True)
    entries = [
        {
            "tweet": {
                "id_str": number,
                "id": number,
                "full_text": text,
                "created_at": "Wed Mar 08 12:00:00 +0000 2023",
                "retweeted": False,
                "lang": "en",
                **({"in_reply_to_status_id_str": parent, "in_reply_to_status_id": parent} if parent else {}),
            }
        }
        for number, text, parent in tweets
    ]
    (folder / "tweets.js").write_bytes(
        b"window.YTD.tweets.part0 = " + orjson.dumps(entries, option=orjson.OPT_INDENT_2)
    )
    owner = [{"account": {"username": f"name {account}", "accountId": account}}]
    (folder / "account.js").write_bytes(b"window.YTD.account.part0 = " + orjson.dumps(owner))


def test_a_chain_of_customer_and_company_is_one_conversation(tmp_path: Path) -> None:
    """The customer is the user, also where a company speaks first; several tweets of one are one turn."""
    path = write_twcs(
        tmp_path / "twcs.csv",
        [
            (8, "sprintcare", False, "@115712 DM us", "", 6),
            (6, "115712", True, "@sprintcare it is\nbroken &amp; dead", "5,8", ""),
            (5, "sprintcare", False, "@115712 sorry", "4", 6),
            (4, "115712", True, "ok", "3", 5),
            (3, "sprintcare", False, "1/2", "2", 4),
            (2, "sprintcare", False, "2/2", "", 3),
            (10, "sprintcare", False, "Hello all", "11", ""),
            (11, "99", True, "Hi", "", 10),
        ],
    )
    items = read(path, "twcs")
    by_id = {item.id: item for item in conversations(items)}
    assert texts([by_id["6"]]) == [["@sprintcare it is\nbroken & dead", "@115712 sorry", "ok", "1/2\n2/2"]]
    assert roles(by_id["6"]) == "user assistant user assistant"
    assert roles(by_id["10"]) == "assistant user"
    assert by_id["6"].licence == "CC-BY-NC-SA-4.0"
    assert rejects(items) == {"not_best_reply": 1}


def test_circles_orphans_and_bad_ids_are_counted(tmp_path: Path) -> None:
    """A chain whose beginning is not in the dump begins where it can; a circle has no beginning."""
    path = write_twcs(
        tmp_path / "twcs.csv",
        [
            (1, "a", True, "x", "", 2),
            (2, "b", False, "y", "", 1),
            (3, "a", True, "on a circle's side", "", 1),
            (4, "a", True, "to himself", "", 4),
            (20, "a", True, "the first is missing", "", 999),
            (21, "b", False, "answer", "", 20),
            (21, "b", False, "the same id again", "", 20),
            (30, "a", True, "alone", "", ""),
            (40, "a", True, "bad parent", "", "1e9"),
        ],
    )
    items = read(path, "twcs")
    assert texts(items) == [["the first is missing", "answer"]]
    assert rejects(items) == {"bad_row": 1, "cyclic_replies": 4, "duplicate_id": 1, "no_reply": 1}


def test_a_csv_of_other_columns_is_an_error(tmp_path: Path) -> None:
    """It is named with what it has."""
    (tmp_path / "a.csv").write_text("tweet_id,text\n1,x\n")
    with pytest.raises(DataError, match="has no column author_id and no inbound and no created_at"):
        read(tmp_path, "twcs")


def test_archives_of_two_people_answer_one_another(tmp_path: Path) -> None:
    """Each archive has one person's tweets; the account beside them says whose. Retweets are left out."""
    write_archive(tmp_path / "amy" / "data", "11", [("1700000000000000001", "Hi &lt;3", ""), ("1", "RT @ben: x", "")])
    write_archive(tmp_path / "ben" / "data", "22", [("1700000000000000002", "@amy Ho", "1700000000000000001")])
    items = read(tmp_path, "x_archive", licence="with their consent")
    assert texts(items) == [["Hi <3", "@amy Ho"]]
    (conversation,) = conversations(items)
    assert (conversation.authors, conversation.licence) == (("11", "22"), "with their consent")
    assert rejects(items) == {"retweet": 1}


def test_an_archive_that_is_no_list_is_an_error(tmp_path: Path) -> None:
    """Nobody knows what it is; entries that are no tweets are bad rows."""
    (tmp_path / "tweets.js").write_text("window.YTD.tweets.part0 = {}")
    with pytest.raises(DataError, match="not an archive's file"):
        read(tmp_path, "x_archive")
    (tmp_path / "tweets.js").write_text('window.YTD.tweets.part0 = [{"tweet": {"id_str": "1"}}, 3]')
    assert rejects(read(tmp_path, "x_archive")) == {"bad_row": 2}


@given(st.lists(st.integers(-1, 25), max_size=20))
def test_the_first_of_a_chain_is_found_by_doubling(parents: list[int]) -> None:
    """The same as by following each tweet's parents one by one, circles included."""
    ids = np.arange(len(parents))

    def follow(number: int) -> int:
        for _ in range(len(parents) + 1):
            if not 0 <= parents[number] < len(parents):
                return number
            number = parents[number]
        return -1

    found = find_first(ids, np.array(parents, dtype=np.int64))
    assert found.tolist() == [follow(number) for number in range(len(parents))]

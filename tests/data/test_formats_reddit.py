import random
from pathlib import Path

import orjson
import pytest
from backports import zstd
from dumps import write_jsonl
from reading import conversations, read, rejects, roles, texts
from reddit_dump import comment, submission, write_dump

from scaletrain.data.formats import Rejected, grouping


def test_a_thread_gives_the_path_of_its_best_replies(tmp_path: Path) -> None:
    """Submissions and comments in files of their own, in any order; signs are unescaped, title and text together."""
    (tmp_path / "RS_2020-01.zst").write_bytes(
        zstd.compress(orjson.dumps(submission("aaa", "Why?", selftext="I &gt; you &amp; me")) + b"\n")
    )
    rows = [
        comment("c2", "aaa", "t1_c1", "thanks", author="amy"),
        comment("c3", "aaa", "t3_aaa", "worse", score=2),
        comment("c1", "aaa", "t3_aaa", "because", score=3),
    ]
    (tmp_path / "RC_2020-01.zst").write_bytes(zstd.compress(b"\n".join(map(orjson.dumps, rows))))
    items = read(f"{tmp_path}/R[SC]_*.zst", "reddit", licence="see Reddit's terms")
    assert texts(items) == [["Why?\n\nI > you & me", "because", "thanks"]]
    (conversation,) = conversations(items)
    assert roles(conversation) == "user assistant user"
    assert (conversation.id, conversation.authors) == ("t3_aaa", ("amy", "ben"))
    assert (conversation.licence, conversation.source) == ("see Reddit's terms", f"{tmp_path}/RS_2020-01.zst:1")
    assert rejects(items) == {"not_best_reply": 1}


def test_deleted_bot_and_low_rows_are_out_and_counted(tmp_path: Path) -> None:
    """And what answers them; scores may be missing, times may be text."""
    rows = [
        submission("a", "Title"),
        comment("c1", "a", "t3_a", "[removed]", score=50),
        comment("c2", "a", "t1_c1", "below removed"),
        comment("c3", "a", "t3_a", "text", author="[deleted]", score=50),
        comment("c4", "a", "t3_a", "I am a bot", author="AutoModerator", score=50),
        comment("c5", "a", "t3_a", "I am one too", author="remind_me-bot", score=50),
        comment("c6", "a", "t3_a", "Rules", author="mod", stickied=True, score=50),
        comment("c7", "a", "t3_a", "bad", score=-3),
        comment("c8", "a", "t3_a", "good", author="Abbot", score=4, created_utc="1577836900"),
        comment("c9", "a", "t1_c8", "hidden score", score=4) | {"score": None},
        submission("b", "Removed", selftext="[removed]"),
        comment("d1", "b", "t3_b", "to a removed one"),
        comment("c10", "a", "t3_a", "[ Removed by Reddit ]", score=50),
        submission("d", "[deleted by user]"),
        submission("c", "Alone"),
        comment("e1", "zzz", "t3_zzz", "thread of another month"),
        comment("f1", "a", "t3_a", "no such score") | {"score": "nan"},
        comment("f2", "a", "t3_a", "no such time") | {"created_utc": "inf"},
    ]
    items = read(write_jsonl(tmp_path / "a.jsonl", rows), "reddit", min_score=0)
    assert texts(items) == [["Title", "good", "hidden score"]]
    assert rejects(items) == {
        "bad_row": 2,
        "bot": 2,
        "deleted": 5,
        "low_score": 1,
        "no_reply": 1,
        "parent_missing": 3,
        "stickied": 1,
    }


def test_rows_that_are_neither_are_bad(tmp_path: Path) -> None:
    """Each with its place."""
    rows = [
        "{",
        {"id": "x"},
        comment("c", "a", "t3_a", "x") | {"parent_id": 17},
        submission("a", "t") | {"score": "ten"},
        3,
    ]
    items = read(write_jsonl(tmp_path / "a.jsonl", rows), "reddit")
    assert rejects(items) == {"bad_row": 5}
    details = [item.detail for item in items if isinstance(item, Rejected)]
    assert "no text under author, body, link_id, parent_id" in details[1]
    assert details[3] == "score is not a number"


def test_no_row_of_a_dump_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the dump = posts in conversations + rows counted, though parts and threads are larger than memory."""
    rows = write_dump(tmp_path, size_bytes=300_000)
    whole = read(f"{tmp_path}/*.zst", "reddit", min_score=0)
    authors_by_turn = sum(len(turn.content.splitlines()) for item in conversations(whole) for turn in item.turns)
    two_parts = sum("\n\n" in item.turns[0].content for item in conversations(whole))
    assert authors_by_turn - 2 * two_parts + sum(rejects(whole).values()) == rows
    monkeypatch.setattr(grouping.Grouping.__init__, "__kwdefaults__", {"part_bytes": 3_000, "group_bytes": 1_000_000})
    parts = read(f"{tmp_path}/*.zst", "reddit", min_score=0)
    assert sorted(map(str, conversations(parts))) == sorted(map(str, conversations(whole)))
    assert rejects(parts) == rejects(whole)


def test_a_dump_in_another_order_gives_the_same_conversations(tmp_path: Path) -> None:
    """The order of its lines is of no consequence, and twice the same file gives the same order."""
    rows = [
        submission("a", "T"),
        *(comment(f"c{i}", "a", f"t1_c{i // 2}" if i else "t3_a", f"x{i}", author=f"u{i}") for i in range(40)),
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    first = read(path, "reddit")
    assert read(path, "reddit") == first
    random.Random(1).shuffle(rows)
    assert texts(read(write_jsonl(path, rows), "reddit")) == texts(first)

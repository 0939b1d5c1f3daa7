"""Rows in the shape of Reddit's dumps (files.pushshift.io, Academic Torrents), and a seeded dump of any size."""

import random
from collections.abc import Iterator
from pathlib import Path

import orjson
from backports import zstd

Row = dict[str, object]
_WORDS = ("the", "a", "of", "is", "not", "you", "what", "why", "how", "good", "never", "maybe", "cat", "train", "rain")


def submission(id: str, title: str, *, author: str = "amy", selftext: str = "", score: int = 10, **more: object) -> Row:
    """A line of RS_*.zst."""
    return {
        "id": id,
        "name": f"t3_{id}",
        "author": author,
        "created_utc": 1577836800,
        "title": title,
        "selftext": selftext,
        "score": score,
        "subreddit": "AskReddit",
        "num_comments": 3,
        "over_18": False,
        "stickied": False,
        "distinguished": None,
        "permalink": f"/r/AskReddit/comments/{id}/",
    } | more


def comment(id: str, link: str, parent: str, body: str, *, author: str = "ben", score: int = 1, **more: object) -> Row:
    """A line of RC_*.zst; `parent` is a full name, t1_... or t3_..."""
    return {
        "id": id,
        "author": author,
        "created_utc": 1577836900,
        "body": body,
        "score": score,
        "link_id": f"t3_{link}",
        "parent_id": parent,
        "subreddit": "AskReddit",
        "controversiality": 0,
        "edited": False,
        "stickied": False,
        "distinguished": None,
    } | more


def write_dump(folder: Path, *, size_bytes: int, seed: int = 0) -> int:
    """Write RS_2020-01.zst and RC_2020-01.zst of so many unpacked bytes, and return the number of rows.

    Threads are mixed as they are in a month: a comment's thread is any of the last thousand.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    written = rows = 0
    with (
        zstd.open(folder / "RS_2020-01.zst", "wb") as submissions,
        zstd.open(folder / "RC_2020-01.zst", "wb") as comments,
    ):
        for row in _rows(draw):
            line = orjson.dumps(row) + b"\n"
            (submissions if "title" in row else comments).write(line)
            written += len(line)
            rows += 1
            if written >= size_bytes:
                return rows
    raise AssertionError


def _rows(draw: random.Random) -> Iterator[Row]:
    threads: list[list[str]] = []  # of each the full names of its posts
    number = 0
    while True:
        number += 1
        name = f"{number:x}"
        author = draw.choice(["AutoModerator", "[deleted]", *(f"user{draw.randrange(10_000)}" for _ in range(30))])
        if not threads or draw.random() < 0.1:
            threads = [*threads[-999:], [f"t3_{name}"]]
            yield submission(
                name, _text(draw, 12), author=author, selftext=_text(draw, 60), score=draw.randrange(-5, 500)
            )
        else:
            thread = draw.choice(threads)
            parent = draw.choice(thread)
            thread.append(f"t1_{name}")
            yield comment(name, thread[0][3:], parent, _text(draw, 40), author=author, score=draw.randrange(-9, 99))


def _text(draw: random.Random, most_words: int) -> str:
    return " ".join(draw.choices(_WORDS, k=draw.randint(1, most_words)))

"""Dumps of Reddit: submissions (RS_*) and comments (RC_*), JSON lines, brought together by thread.

A thread gives the path of its best replies (see threads.py): the submission's title and text are the first turn. Left
out and counted are `deleted` and `bot` rows, `stickied` comments (notes of moderators), rows of less than `min_score`
(`low_score`), and what answers any of them (`parent_missing`).
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from scaletrain.config_data import Corpus
from scaletrain.data.formats.files import SourceFile
from scaletrain.data.formats.grouping import Grouping
from scaletrain.data.formats.items import Item, Rejected, Tally
from scaletrain.data.formats.json_rows import parsed_rows
from scaletrain.data.formats.threads import Post, posts_of, read_threads, to_row
from scaletrain.data.formats.tweets import unescape
from scaletrain.errors import DataError

_DELETED = ("[deleted]", "[removed]", "[deleted by user]", "[ removed by reddit ]")
# AutoModerator, RemindMeBot, some_bot, some-bot, but not Abbot.
_BOT = re.compile(r"AutoModerator|.*(?:[-_][Bb]ot|[a-z0-9](?:Bot|BOT))[-_0-9]*", re.S)


def read_reddit(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read submissions and comments, in whatever files and order they are."""
    tally = Tally()
    with Grouping() as threads:
        for file in files:
            for each in parsed_rows(file, _post):
                if isinstance(each, Rejected):
                    yield each
                    continue
                source, (row, thread, post) = each
                if reason := _reason_to_leave_out(row, post, min_score=corpus.min_score):
                    tally.add(reason, source)
                else:
                    threads.add(thread, to_row(post))
        for group in threads.groups():
            yield from read_threads(posts_of(group, tally), tally, orphans_begin=False)
    yield from tally.rejected()


def _post(row: object, source: str) -> tuple[dict[str, Any], str, Post]:
    """Return a row, the thread it belongs to, and itself as a post; ids are t3_ and t1_ names, as parents are."""
    if not isinstance(row, dict):
        raise DataError("not an object")
    is_submission = "title" in row
    needed = ("id", "author", "title") if is_submission else ("id", "author", "body", "link_id", "parent_id")
    missing = [name for name in needed if not isinstance(row.get(name), str)]
    if missing:
        raise DataError(f"neither a submission nor a comment: no text under {', '.join(missing)}")
    name = f"{'t3' if is_submission else 't1'}_{row['id'].removeprefix('t3_' if is_submission else 't1_')}"
    if is_submission:
        thread, parent_id = name, ""
        text = "\n\n".join(part for part in (row["title"], _selftext(row)) if part.strip())
    else:
        thread, parent_id, text = row["link_id"], row["parent_id"], row["body"]
    score = _number(row.get("score"), name="score")
    time_s = _number(row.get("created_utc"), name="created_utc")
    return row, thread, Post(name, parent_id, row["author"], unescape(text), score, time_s, None, source)


def _reason_to_leave_out(row: dict[str, Any], post: Post, *, min_score: int | None) -> str:
    texts = (post.text, str(row.get("body", row.get("selftext"))), str(row.get("title")))
    if post.author in _DELETED or not post.text.strip() or any(text.strip().lower() in _DELETED for text in texts):
        return "deleted"
    if _BOT.fullmatch(post.author):
        return "bot"
    if post.parent_id and row.get("stickied"):
        return "stickied"
    return "low_score" if min_score is not None and post.score < min_score else ""


def _selftext(row: dict[str, Any]) -> str:
    text = row.get("selftext") or ""
    if not isinstance(text, str):
        raise DataError("selftext is not text")
    return text


def _number(value: object, *, name: str) -> float:
    """A score or a time; some years' dumps have times as text, and no score where it was hidden."""
    try:
        number = float(value or 0)  # type: ignore[arg-type]
    except (TypeError, ValueError) as exc:
        raise DataError(f"{name} is not a number") from exc
    if not math.isfinite(number):
        raise DataError(f"{name} is not a number")
    return number

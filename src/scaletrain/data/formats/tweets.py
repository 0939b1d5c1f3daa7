"""Tweets become conversations by what they reply to.

    twcs       Customer Support on Twitter: a CSV with tweet_id, author_id, inbound, text, in_response_to_tweet_id
    x_archive  the archives that X gives its users: tweets.js, with account.js beside it

A tweet names its parent, not its thread. Files are read twice, therefore: first the ids, from which the first tweet of
each chain follows, then the tweets, brought together by it on disk. Memory: up to 80 bytes a tweet, and what one group
takes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt

from scaletrain import storage
from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Role
from scaletrain.data.formats.files import SourceFile, folder_of, load_json, opened, read_whole
from scaletrain.data.formats.grouping import Grouping
from scaletrain.data.formats.items import BAD_ROW, Item, Rejected, Tally
from scaletrain.data.formats.tables import csv_rows
from scaletrain.data.formats.threads import Post, posts_of, read_threads, to_row
from scaletrain.errors import DataError, NotFoundError

Ints = npt.NDArray[np.int64]
ReadPosts = Callable[[SourceFile], Iterator[Post | Rejected]]

ARCHIVE_FILES = ("tweets.js", "tweet.js", *(f"tweets-part{number}.js" for number in range(1, 100)))
ACCOUNT = "account.js"
_TWCS_COLUMNS = ("tweet_id", "author_id", "inbound", "created_at", "text", "in_response_to_tweet_id")
_ID = re.compile(r"[0-9]{1,18}|[1-8][0-9]{18}")
_TIME = "%a %b %d %H:%M:%S %z %Y"


def read_twcs(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read customer-support CSV: the customer (inbound) is the user, the company the assistant."""
    return _chains(files, _twcs_posts)


def read_x_archive(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read archives of several people: of one alone, there is nobody who answers. Retweets are left out."""
    return _chains(files, _archive_posts)


def _chains(files: Sequence[SourceFile], read_posts: ReadPosts) -> Iterator[Item]:
    ids, parents = _ids_and_parents(post for file in files for post in read_posts(file))
    first = find_first(ids, parents)
    tally = Tally()
    with Grouping() as chains:
        for file in files:
            for post in read_posts(file):
                if isinstance(post, Rejected):
                    if post.reason == BAD_ROW:
                        yield post
                    else:  # counted at the end, after what `limit` takes
                        tally.add(post.reason, post.source)
                    continue
                root = first[np.searchsorted(ids, int(post.id))]
                if root < 0:
                    tally.add("cyclic_replies", post.source)
                else:
                    chains.add(str(root), to_row(post))
        for group in chains.groups():
            yield from read_threads(posts_of(group, tally), tally, orphans_begin=True)
    yield from tally.rejected()


def find_first(ids: Ints, parents: Ints) -> Ints:
    """Return for each tweet the first of its chain: the one whose parent is not among `ids`; -1 where there is none.

    ids: sorted, each once. parents: -1 where there is none. Each round doubles how far a tweet looks back.
    """
    number = np.arange(len(ids))
    place = np.searchsorted(ids, parents)
    place[place == len(ids)] = 0
    back = np.where(ids[place] == parents, place, number) if len(ids) else number
    is_first = back == number
    is_first &= ids != parents  # a tweet that answers itself
    for _ in range(len(ids).bit_length()):
        back = back[back]
    return np.where(is_first[back], ids[back], -1) if len(ids) else ids


def _ids_and_parents(posts: Iterable[Post | Rejected]) -> tuple[Ints, Ints]:
    """The sorted ids, and the parent of each; of two tweets with one id the first counts."""
    pairs = np.fromiter(
        (number for post in posts if isinstance(post, Post) for number in (int(post.id), int(post.parent_id or -1))),
        dtype=np.int64,
    ).reshape(-1, 2)
    ids, places = np.unique(pairs[:, 0], return_index=True)
    return ids, pairs[places, 1]


def _twcs_posts(file: SourceFile) -> Iterator[Post | Rejected]:
    with csv_rows(file) as (header, rows):
        missing = [name for name in _TWCS_COLUMNS if name not in header]
        if missing:
            raise DataError(f"{file.name}: has no column {' and no '.join(missing)}, only {', '.join(header)}")
        for each in rows:
            if isinstance(each, Rejected):
                yield each
                continue
            source, row = each
            role: Role = "user" if row["inbound"] == "True" else "assistant"
            parent_id, time = row["in_response_to_tweet_id"], row["created_at"]
            yield _post(row["tweet_id"], parent_id, row["author_id"], row["text"], time, role=role, source=source)


def _archive_posts(file: SourceFile) -> Iterator[Post | Rejected]:
    """Read window.YTD.tweets.part0 = [{"tweet": {...}}, ...]; the account that wrote them is named beside it."""
    author = _account(file)
    for number, entry in enumerate(_assigned(file), start=1):
        source = f"{file.name}:row {number}"
        tweet = entry.get("tweet", entry) if isinstance(entry, dict) else None
        if not isinstance(tweet, dict) or not isinstance(tweet.get("full_text", tweet.get("text")), str):
            yield Rejected(source, BAD_ROW, "no tweet with a full_text")
            continue
        text = str(tweet.get("full_text", tweet.get("text")))
        parent_id = tweet.get("in_reply_to_status_id_str") or ""
        if text.startswith("RT @"):
            yield Rejected(source, "retweet")
        else:
            yield _post(
                tweet.get("id_str", tweet.get("id")), parent_id, author, text, tweet.get("created_at"), source=source
            )


def _post(
    tweet_id: object, parent_id: object, author: str, text: str, time: object, *, source: str, role: Role | None = None
) -> Post | Rejected:
    """A tweet as a post, or a bad row where its ids are no numbers; Twitter escapes three characters as HTML does."""
    number, parent = str(tweet_id), str(parent_id)
    if not _ID.fullmatch(number) or (parent and not _ID.fullmatch(parent)):
        return Rejected(source, BAD_ROW, "a tweet's id, or the one it replies to, is not a number")
    return Post(number, parent, author, unescape(text), 0.0, _seconds(time), role, source)


def unescape(text: str) -> str:
    """Undo the escaping of <, > and & that dumps of Twitter and Reddit have."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _seconds(time: object) -> float:
    try:
        return datetime.strptime(str(time), _TIME).timestamp()
    except ValueError:
        return 0.0


def _account(file: SourceFile) -> str:
    """Who wrote an archive: the account's id, else the archive's own folder."""
    folder = folder_of(file.url)
    try:
        data = storage.read_bytes(f"{folder}{ACCOUNT}")
    except NotFoundError:
        return folder_of(file.name)
    entries = load_json(data.partition(b"=")[2], f"{folder}{ACCOUNT}")
    account = (
        entries[0].get("account") if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    )
    return str(account.get("accountId", folder)) if isinstance(account, dict) else folder


def _assigned(file: SourceFile) -> list[object]:
    with opened(file) as stream:
        data = read_whole(stream, file.name)
    entries = load_json(data[data.find(b"=") + 1 :] if data[:1] != b"[" else data, file.name)
    if not isinstance(entries, list):
        raise DataError(f"{file.name}: not an archive's file: expected window.YTD.tweets.part0 = [...]")
    return entries

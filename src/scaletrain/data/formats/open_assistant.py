"""Open Assistant's exports (OASST1 and 2): of each tree of messages the path of the replies that people ranked best.

A line is a tree {"message_tree_id", "prompt": {..., "replies": [...]}} and gives one conversation; or it is a message
with its parent_id, and the messages of a tree are brought together on disk (those that are not in the path counted).
Messages that were deleted or failed review are left out, and what answers them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation, Drop, Role
from scaletrain.data.formats.files import SourceFile
from scaletrain.data.formats.grouping import Grouping
from scaletrain.data.formats.items import Item, Rejected, Tally, parsed
from scaletrain.data.formats.json_rows import parsed_rows
from scaletrain.data.formats.threads import Post, posts_of, read_threads, to_row
from scaletrain.errors import DataError

_ROLES: dict[object, Role] = {"prompter": "user", "assistant": "assistant"}
_UNRANKED = 1e9


def read_oasst(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read files of trees, of messages, or of both."""
    tally = Tally()
    with Grouping() as trees:
        for file in files:
            for each in parsed_rows(file, _tree_or_message):
                if isinstance(each, Rejected):
                    yield each
                    continue
                source, message = each
                if not isinstance(message, dict):
                    yield message
                elif _is_left_out(message):
                    tally.add("deleted", source)
                else:
                    key = str(message.get("message_tree_id") or "")
                    trees.add(key, [*to_row(_post(message, source)), message.get("lang") or ""])
        for group in trees.groups():
            languages = {row[0]: row.pop() for row in group.rows or ()}
            for conversation in read_threads(posts_of(group, tally), tally, orphans_begin=False):
                yield replace(conversation, language=languages[conversation.id])
    yield from tally.rejected()


def _tree_or_message(row: object, source: str) -> Item | dict[str, Any]:
    """A row that is a tree gives its conversation; any other must be a message."""
    return parsed(_parse_tree, row, source) if isinstance(row, dict) and "prompt" in row else _checked(row)


def _parse_tree(row: dict[str, Any]) -> Conversation:
    posts: list[Post] = []
    waiting = [_checked(row["prompt"])]
    language = str(waiting[0].get("lang") or "")
    while waiting:
        message = waiting.pop()
        if _is_left_out(message):
            continue
        posts.append(_post(message, ""))
        replies = message.get("replies") or []
        if not isinstance(replies, list):
            raise DataError("replies is not a list")
        waiting += [_checked(reply) | {"parent_id": message["message_id"]} for reply in replies]
    if not posts:
        raise Drop("deleted")
    posts[0] = replace(posts[0], parent_id="")
    for conversation in read_threads(posts, Tally(), orphans_begin=False):
        return replace(conversation, language=language)
    raise Drop("no_reply")


def _checked(message: object) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise DataError("a message that is not an object")
    missing = [key for key in ("message_id", "text", "role") if not isinstance(message.get(key), str)]
    if missing:
        raise DataError(f"a message without {', '.join(missing)}, only {', '.join(map(str, message)) or 'nothing'}")
    if message["role"] not in _ROLES:
        raise DataError(f"the role {message['role']}; expected prompter or assistant")
    return message


def _is_left_out(message: dict[str, Any]) -> bool:
    return bool(message.get("deleted")) or message.get("review_result") is False


def _post(message: dict[str, Any], source: str) -> Post:
    rank = message.get("rank")
    return Post(
        id=message["message_id"],
        parent_id=str(message.get("parent_id") or ""),
        author=str(message.get("user_id") or message["role"]),
        text=message["text"],
        score=-float(rank) if isinstance(rank, (int, float)) else -_UNRANKED,
        time_s=0.0,
        role=_ROLES[message["role"]],
        source=source,
    )

"""Posts that answer one another become conversations: of each tree of replies, the path of the best ones.

The path begins at the post that answers none and goes on to the best reply of each: one by another author before one
by the same, then the higher score, then the earlier. What one author says in a row is one turn (of known roles: what
is said in one role). Every post that is in
no conversation is counted under its reason:

    not_best_reply   there was a better one, here or further up
    no_reply         nobody answered
    parent_missing   what it answers is not in the dump, or was left out
    cyclic_replies   it answers itself, by way of others
    duplicate_id     another post had its id before
    thread_too_large more than fits into memory
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from scaletrain.data.conversation import Conversation, Role, Turn
from scaletrain.data.formats.grouping import Group
from scaletrain.data.formats.items import Tally


@dataclass(frozen=True, slots=True)
class Post:
    """One thing said, in answer to the post `parent_id` (empty: to none); role: where the dump knows it."""

    id: str
    parent_id: str
    author: str
    text: str
    score: float
    time_s: float
    role: Role | None
    source: str


def to_row(post: Post) -> list[object]:
    """A post as a row of a Grouping."""
    return [post.id, post.parent_id, post.author, post.text, post.score, post.time_s, post.role, post.source]


def posts_of(group: Group, tally: Tally) -> list[Post]:
    """The posts of a group; none where it is too large, which is counted."""
    if group.rows is None:
        tally.add("thread_too_large", group.key, group.count)
        return []
    return [Post(*row) for row in group.rows]


def read_threads(posts: Sequence[Post], tally: Tally, *, orphans_begin: bool) -> Iterator[Conversation]:
    """Yield the conversations of posts that hang together, one for each that begins a thread.

    `orphans_begin`: a post whose parent is not there begins a thread too.
    """
    by_id: dict[str, Post] = {}
    for post in posts:
        if by_id.setdefault(post.id, post) is not post:
            tally.add("duplicate_id", post.source)
    replies: dict[str, list[Post]] = defaultdict(list)
    roots: list[Post] = []
    orphans: list[Post] = []
    for post in by_id.values():
        if not post.parent_id:
            roots.append(post)
        elif post.parent_id not in by_id:
            (roots if orphans_begin else orphans).append(post)
        else:
            replies[post.parent_id].append(post)

    left = dict.fromkeys(by_id)
    for root in roots:
        path = _best_path(root, replies)
        conversation = _conversation(path)
        if conversation is None:
            tally.add("no_reply", root.source, len(path))
        else:
            yield conversation
        in_path = {post.id for post in path}
        for post in _tree(root, replies):
            del left[post.id]
            if post.id not in in_path:
                tally.add("not_best_reply", post.source)
    for orphan in orphans:
        for post in _tree(orphan, replies):
            del left[post.id]
            tally.add("parent_missing", post.source)
    for post_id in left:
        tally.add("cyclic_replies", by_id[post_id].source)


def _best_path(root: Post, replies: Mapping[str, Sequence[Post]]) -> list[Post]:
    path = [root]
    while following := replies.get(path[-1].id):
        speaker = _speaker(path[-1])
        path.append(min(following, key=lambda each: (_speaker(each) == speaker, -each.score, each.time_s, each.id)))
    return path


def _tree(root: Post, replies: Mapping[str, Sequence[Post]]) -> Iterator[Post]:
    waiting = [root]
    while waiting:
        post = waiting.pop()
        yield post
        waiting.extend(replies.get(post.id, ()))


def _conversation(path: Iterable[Post]) -> Conversation | None:
    """A path's turns: roles as the dump knows them, else user and assistant in turn; None where only one speaks."""
    turns: list[Turn] = []
    posts = list(path)
    for _, run in groupby(posts, key=_speaker):
        said = list(run)
        role = said[0].role or ("assistant" if len(turns) % 2 else "user")
        turns.append(Turn(role, "\n".join(post.text for post in said)))
    if len(turns) < 2:
        return None
    authors = tuple(dict.fromkeys(post.author for post in posts if post.author))
    return Conversation(tuple(turns), source=posts[0].source, id=posts[0].id, authors=authors)


def _speaker(post: Post) -> str:
    return post.role or post.author

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from scaletrain.data.conversation import Conversation
from scaletrain.data.formats.items import Tally
from scaletrain.data.formats.threads import Post, read_threads


def post(id: str, parent_id: str, *, author: str = "", score: float = 0, time_s: float = 0) -> Post:
    return Post(id, parent_id, author or f"by {id}", f"text {id}", score, time_s, None, f"dump:{id}")


def read(posts: Sequence[Post], *, orphans_begin: bool = False) -> tuple[list[Conversation], dict[str, int]]:
    tally = Tally()
    conversations = list(read_threads(posts, tally, orphans_begin=orphans_begin))
    return conversations, {each.reason: each.count for each in tally.rejected()}


def test_the_path_follows_the_best_replies() -> None:
    """The higher score, then the earlier, then the id; an author's answer to himself comes last."""
    posts = [
        post("root", "", author="amy"),
        post("self", "root", author="amy", score=99),
        post("late", "root", author="ben", score=5, time_s=2),
        post("early", "root", author="ben", score=5, time_s=1),
        post("reply", "early", author="amy"),
        post("more", "reply", author="amy"),
    ]
    (conversation,), rejected = read(posts)
    assert [turn.content for turn in conversation.turns] == ["text root", "text early", "text reply\ntext more"]
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "user"]
    assert (conversation.id, conversation.authors, conversation.source) == ("root", ("amy", "ben"), "dump:root")
    assert rejected == {"not_best_reply": 2}


def test_each_post_that_is_left_out_has_its_reason() -> None:
    """Nobody answers, the parent is gone, the chain goes in a circle, an id is there twice."""
    posts = [
        post("alone", ""),
        post("orphan", "gone"),
        post("below", "orphan"),
        post("a", "b"),
        post("b", "a"),
        post("tail", "b"),
        post("self", "self"),
        post("alone", "below"),
    ]
    conversations, rejected = read(posts)
    assert conversations == []
    assert rejected == {"no_reply": 1, "parent_missing": 2, "cyclic_replies": 4, "duplicate_id": 1}


def test_an_orphan_may_begin_a_thread() -> None:
    """Where parents are often outside of the dump, what answers them is a beginning."""
    conversations, rejected = read([post("a", "gone"), post("b", "a")], orphans_begin=True)
    assert [each.id for each in conversations] == ["a"]
    assert rejected == {}


def test_a_chain_of_twenty_thousand_replies_is_read() -> None:
    """Depth is no recursion."""
    posts = [post(str(i), str(i - 1) if i else "", author=f"{i % 2}") for i in range(20_000)]
    (conversation,), rejected = read(posts)
    assert len(conversation.turns) == 20_000
    assert rejected == {}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 11), st.integers(0, 2)), max_size=30), st.booleans())
def test_every_post_is_in_one_conversation_or_counted(rows: list[tuple[int, int, int]], orphans_begin: bool) -> None:
    """Whatever answers whatever: no post is lost, and none is there twice."""
    posts = [post(str(i), str(parent) if parent >= 0 else "", author=str(who)) for i, parent, who in rows]
    conversations, rejected = read(posts, orphans_begin=orphans_begin)
    said = [line for each in conversations for turn in each.turns for line in turn.content.split("\n")]
    assert len(said) == len(set(said))
    assert len(said) + sum(rejected.values()) == len(posts)

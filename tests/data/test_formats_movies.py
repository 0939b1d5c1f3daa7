from pathlib import Path

import pytest
from dumps import write_jsonl
from reading import conversations, read, rejects, roles, texts

from scaletrain.data.formats import Rejected
from scaletrain.errors import DataError

LINES = """\
L1045 +++$+++ u0 +++$+++ m0 +++$+++ BIANCA +++$+++ They do not!
L1044 +++$+++ u2 +++$+++ m0 +++$+++ CAMERON +++$+++ They do to!
L985 +++$+++ u0 +++$+++ m0 +++$+++ BIANCA +++$+++ I hope so\x92 caf\xe9.
L984 +++$+++ u2 +++$+++ m0 +++$+++ CAMERON +++$+++ She okay?
L870 +++$+++ u0 +++$+++ m0 +++$+++ BIANCA +++$+++ 
L1 +++$+++ u5 +++$+++ m0 +++$+++ NOBODY +++$+++ to myself
"""  # noqa: W291
CONVERSATIONS = """\
u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L1044', 'L1045']
u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L984', 'L985', 'L870']
"""


def write_cornell(folder: Path, *, lines: str = LINES, conversations: str = CONVERSATIONS) -> Path:
    """The two files as the corpus has them: Windows' Western encoding, fields between signs."""
    folder.mkdir(exist_ok=True)
    (folder / "movie_lines.txt").write_bytes(lines.encode("latin-1"))
    (folder / "movie_conversations.txt").write_bytes(conversations.encode("latin-1"))
    (folder / "README.txt").write_text("not read")
    return folder


def utterance(id: str, text: str, *, speaker: str, to: str | None, root: str = "L1044") -> dict[str, object]:
    """A line of ConvoKit's utterances.jsonl."""
    return {
        "id": id,
        "conversation_id": root,
        "text": text,
        "speaker": speaker,
        "meta": {"movie_id": "m0", "parsed": []},
        "reply-to": to,
        "timestamp": None,
        "vectors": [],
    }


def test_cornells_lines_are_put_into_their_conversations(tmp_path: Path) -> None:
    """Lines stand in any order; the text is cp1252; an utterance may be empty, or in no conversation."""
    items = read(write_cornell(tmp_path / "cornell"), "cornell")
    assert texts(items) == [["They do to!", "They do not!"], ["She okay?", "I hope so’ café.\n".strip()]]
    first = conversations(items)[0]
    assert (roles(first), first.authors, first.licence) == ("user assistant", ("u2", "u0"), "")
    assert first.source.endswith("movie_conversations.txt:1")
    assert rejects(items) == {"in_no_conversation": 1}


def test_cornells_bad_rows_are_counted_with_their_places(tmp_path: Path) -> None:
    """Fields that are missing, lines that are not there, and a list that is empty."""
    lines = LINES + "L2 +++$+++ u1\n"
    wrong = (
        CONVERSATIONS + "u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L1044', 'L9']\nu0\nu0 +++$+++ u2 +++$+++ m0 +++$+++ []\n"
    )
    items = read(write_cornell(tmp_path / "cornell", lines=lines, conversations=wrong), "cornell")
    rejected = [item for item in items if isinstance(item, Rejected) and item.reason == "bad_row"]
    assert [each.source.rpartition("/")[2] for each in rejected] == [
        "movie_lines.txt:7",
        "movie_conversations.txt:3",
        "movie_conversations.txt:4",
        "movie_conversations.txt:5",
    ]
    assert "the line L9 is not in" in rejected[1].detail
    assert len(texts(items)) == 2


def test_cornell_needs_both_files(tmp_path: Path) -> None:
    """One of them alone says nothing; the error names the other."""
    folder = write_cornell(tmp_path / "cornell")
    (folder / "movie_lines.txt").unlink()
    with pytest.raises(DataError, match=r"there is no .*movie_lines\.txt beside it"):
        read(folder, "cornell")
    write_cornell(folder)
    (folder / "movie_conversations.txt").unlink()
    with pytest.raises(DataError, match=r"there is no .*movie_conversations\.txt beside it"):
        read(folder, "cornell")


def test_convokits_utterances_are_chained_by_their_replies(tmp_path: Path) -> None:
    """The file has a conversation's utterances from the last to the first."""
    rows = [
        utterance("L1046", "Why?", speaker="u2", to="L1045"),
        utterance("L1045", "They do not!", speaker="u0", to="L1044"),
        utterance("L1044", "They do to!", speaker="u2", to=None),
        utterance("L1", "alone", speaker="u2", to=None, root="L1"),
        {"id": "L2", "text": "no speaker", "conversation_id": "L2"},
        {"text": "no conversation"},
    ]
    items = read(write_jsonl(tmp_path / "movie-corpus" / "utterances.jsonl", rows).parent, "convokit")
    assert texts(items) == [["They do to!", "They do not!", "Why?"]]
    assert conversations(items)[0].authors == ("u2", "u0")
    assert rejects(items) == {"bad_row": 2, "no_reply": 1}


def test_convokits_circle_is_counted(tmp_path: Path) -> None:
    """Two utterances that answer one another have no beginning."""
    rows = [utterance("a", "1", speaker="u", to="b"), utterance("b", "2", speaker="v", to="a")]
    assert rejects(read(write_jsonl(tmp_path / "utterances.jsonl", rows), "convokit")) == {"cyclic_replies": 2}

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from reading import conversations, read, rejects, roles, texts

from scaletrain.data.formats import Rejected, xml_rows
from scaletrain.errors import DataError

Row = Mapping[str, object]


def write_xml(path: Path, rows: Sequence[Row]) -> Path:
    """A file of the dump: an attribute a column, what is null left out, line breaks as character references."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"  <row {' '.join(f'{key}={quoteattr(str(value), ENTITIES)}' for key, value in row.items())} />"
        for row in rows
    ]
    name = path.stem.lower()
    path.write_text(
        "\ufeff" + "\r\n".join(['<?xml version="1.0" encoding="utf-8"?>', f"<{name}>", *lines, f"</{name}>"])
    )
    return path


ENTITIES = {"\n": "&#xA;", "\r": "&#xD;"}


def question(id: int, body: str, *, title: str = "How?", score: int = 5, user: int = 1, **more: object) -> Row:
    """A question of Posts.xml."""
    return {
        "Id": id,
        "PostTypeId": 1,
        "CreationDate": "2012-07-31T21:42:52.667",
        "Score": score,
        "ViewCount": 99,
        "Body": body,
        "OwnerUserId": user,
        "LastActivityDate": "2012-08-01T21:42:52.667",
        "Title": title,
        "Tags": "<python>",
        "AnswerCount": 2,
    } | more


def answer(id: int, parent: int, body: str, *, score: int = 1, user: int = 2, **more: object) -> Row:
    """An answer of Posts.xml."""
    row = {"Id": id, "PostTypeId": 2, "ParentId": parent, "CreationDate": "2012-08-01T01:00:00.000", "Score": score}
    return {**row, "Body": body, "OwnerUserId": user, "ContentLicense": "CC BY-SA 3.0", **more}


def comment(id: int, post: int, text: str, *, user: int, day: int = 2) -> Row:
    """A comment of Comments.xml."""
    time = f"2019-08-{day:02}T01:00:00.000"
    return {"Id": id, "PostId": post, "Score": 0, "Text": text, "CreationDate": time, "UserId": user}


def test_a_question_goes_with_its_accepted_answer(tmp_path: Path) -> None:
    """Accepted before better scored before earlier; HTML is Markdown, with code as it stands."""
    html = (
        "<p>Use <code>a &lt; b</code> &amp; <b>not</b> a_b:</p>\n\n"
        '<pre class="lang-py prettyprint-override"><code>def f(x):\n    return x * 2  # &lt;tag&gt;\n</code></pre>\n'
        '<ul>\n<li>one</li>\n<li><a href="https://x.org">two</a></li>\n</ul>\n<blockquote><p>said</p></blockquote>'
    )
    rows = [
        question(4, "<p>What?</p>", AcceptedAnswerId=6),
        answer(5, 4, "<p>better scored</p>", score=99),
        answer(6, 4, html, score=0),
        question(7, "<p>Which?</p>", title="Which"),
        answer(8, 7, "<p>late</p>", CreationDate="2020-01-01T00:00:00.000"),
        answer(9, 7, "<p>early</p>"),
        question(10, "<p>Nobody knows</p>"),
        {"Id": 11, "PostTypeId": 5, "Body": "a wiki"},
        answer(12, 999, "<p>of a question that was deleted</p>"),
    ]
    items = read(write_xml(tmp_path / "Posts.xml", rows), "stack_exchange")
    by_id = {item.id: item for item in conversations(items)}
    assert texts([by_id["7"]]) == [["Which\n\nWhich?", "early"]]
    assert by_id["4"].turns[0].content == "How?\n\nWhat?"
    assert by_id["4"].turns[1].content == (
        "Use `a < b` & **not** a_b:\n\n```py\ndef f(x):\n    return x * 2  # <tag>\n```\n\n"
        "- one\n- [two](https://x.org)\n\n> said"
    )
    assert by_id["4"].authors == ("1", "2")
    assert by_id["4"].licence == "CC-BY-SA-3.0"
    assert by_id["4"].source == f"{tmp_path}/Posts.xml:3"
    assert rejects(items) == {"no_dialogue": 1, "no_reply": 1, "not_best_reply": 2, "parent_missing": 1}


def test_what_the_two_say_below_the_answer_goes_on(tmp_path: Path) -> None:
    """Comments of asker and answerer from the asker's first on; all others are counted. Each site has its own ids."""
    posts = [question(1, "<p>Q</p>", user=7), answer(2, 1, "<p>A</p>", user=8), answer(3, 1, "<p>B</p>", score=0)]
    comments = [
        comment(15, 2, "You are welcome", user=8, day=5),
        comment(11, 2, "first me", user=8, day=1),
        comment(12, 2, "Thanks", user=7, day=2),
        comment(13, 2, "I agree", user=9, day=3),
        comment(14, 2, "And why?", user=7, day=4),
        comment(16, 1, "below the question", user=9),
        comment(17, 3, "below another answer", user=7),
        comment(18, 99, "below nothing", user=7),
    ]
    write_xml(tmp_path / "one" / "Posts.xml", posts)
    write_xml(tmp_path / "one" / "Comments.xml", comments)
    write_xml(tmp_path / "one" / "Users.xml", [])
    write_xml(tmp_path / "two" / "Posts.xml", [question(1, "<p>other</p>"), answer(2, 1, "<p>site</p>")])
    items = read(tmp_path, "stack_exchange")
    found = sorted(texts(items), key=len)
    assert found == [["How?\n\nother", "site"], ["How?\n\nQ", "A", "Thanks\nAnd why?", "You are welcome"]]
    long = max(conversations(items), key=lambda each: len(each.turns))
    assert roles(long) == "user assistant user assistant"
    assert long.licence == "CC-BY-SA-3.0 AND CC-BY-SA-4.0"
    assert rejects(items) == {"not_best_reply": 6}


def test_low_scores_are_left_out(tmp_path: Path) -> None:
    """Questions and answers below min_score, and what belongs to them."""
    rows = [
        question(1, "<p>Q</p>"),
        answer(2, 1, "<p>A</p>", score=1),
        question(3, "<p>bad</p>", score=-4),
        answer(4, 3, "<p>to a bad one</p>", score=9),
        question(5, "<p>good</p>"),
        answer(6, 5, "<p>good</p>", score=2),
    ]
    items = read(write_xml(tmp_path / "Posts.xml", rows), "stack_exchange", min_score=2)
    assert texts(items) == [["How?\n\ngood", "good"]]
    assert rejects(items) == {"low_score": 2, "no_reply": 1, "parent_missing": 1}


def test_rows_that_cannot_be_read_are_bad(tmp_path: Path) -> None:
    """Without a body, without a parent, a score that is no number, HTML nested beyond reading."""
    rows = [
        {"Id": 1, "PostTypeId": 1, "Score": 3},
        {"Id": 2, "PostTypeId": 2, "Score": 3, "Body": "x"},
        question(3, "<p>x</p>") | {"Score": "many"},
        question(4, "<b>" * 5000 + "deep"),
        answer(5, 4, "<p>fine</p>"),
        question(6, "<p>x</p>") | {"Score": "9" * 20},
    ]
    path = write_xml(tmp_path / "Posts.xml", rows)
    items = read(path, "stack_exchange", min_score=0)
    assert rejects(items) == {"bad_row": 6}
    places = {(item.source, item.detail) for item in items if isinstance(item, Rejected)}
    assert (f"{path}:3", "a row without Body, only Id, PostTypeId, Score") in places
    assert (f"{path}:6", "HTML that is nested too deeply") in places


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    """A few lines of entities that stand for gigabytes: the declaration is an error, whoever uses it."""
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    path = tmp_path / "Posts.xml"
    path.write_text(f'<!DOCTYPE x [<!ENTITY l0 "lol">{entities}]>\n<posts><row Id="1" Body="&l9;"/></posts>')
    with pytest.raises(DataError, match=r"Posts\.xml:1: declares the entity l0, which no dump needs"):
        read(path, "stack_exchange")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('<posts>\n  <row Id="1"', r"Posts\.xml:2: not XML \(at byte \d+\): unclosed token"),
        ("<posts>\n<row Id='1' />", r"Posts\.xml:2: not XML .*no element found"),
        ('<posts>\n<row Body="\xff"/></posts>', r"Posts\.xml:2: not XML .*not well-formed"),
        ('<?xml version="1.0" encoding="utf-99"?>\n<posts>', r"Posts\.xml:2: not XML"),
        ("", r"Posts\.xml:1: not XML .*no element found"),
        ("\x02\xbc\xaf'\x1c", r"Posts\.xml:1: not XML"),
        ("7z\xbc\xaf'\x1c", r"Posts\.xml: is a 7z archive; unpack it"),
    ],
)
def test_xml_that_is_not_whole_is_an_error(tmp_path: Path, content: str, problem: str) -> None:
    """With the line and the byte at which it stops being XML."""
    (tmp_path / "Posts.xml").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=problem):
        read(tmp_path, "stack_exchange")


def test_an_element_without_an_end_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of gigabytes is refused where it passes the bound, not where it ends."""
    monkeypatch.setattr(xml_rows, "MAX_LINE_BYTES", 200_000)
    (tmp_path / "Posts.xml").write_text('<posts>\n<row Id="1" Body="' + "x" * 1_000_000)
    with pytest.raises(DataError, match=r"Posts\.xml:2: an element of more than 200,000 bytes \(at byte 8\)"):
        read(tmp_path, "stack_exchange")

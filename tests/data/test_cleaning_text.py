"""Steps on characters and on what is written for machines."""

from typing import Any

import pytest
from conversations import apply, contents, step, talk

from scaletrain.data.cleaning import clean
from scaletrain.data.conversation import Drop


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ("  a  b \n\n\n\n c\u00a0d\te ", "a b\n\n c d e"),
        ("a\r\nb\rc\u2028d\x0be", "a\nb\nc\nd\ne"),
        ("zero\u200b\u00ad\ufeff\u2060width", "zerowidth"),
        ("list:\n    - one   two", "list:\n    - one two"),
        ("ok\n```\na  =  1\n```\nso  so", "ok\n```\na  =  1\n```\nso so"),
        ("use `a  b`  now", "use `a  b`  now"),
        ("你好\u3000世界", "你好\u3000世界"),
        (" \n ", ""),
    ],
)
def test_spaces_are_tidied_outside_of_code(raw: str, tidy: str) -> None:
    """Runs of spaces and blank lines become one, what cannot be seen goes; indentation and code stay."""
    assert apply(step("tidy_spaces"), raw) == tidy


def test_a_long_run_of_spaces_is_looked_at_once() -> None:
    """A million spaces take no longer than they should: nothing here looks at the rest of a run again and again."""
    assert apply(step("tidy_spaces"), "a" + " " * 1_000_000 + "b" + "\n " * 100_000 + "c") == "a b\n\n c"


def test_width_is_folded_only_where_asked() -> None:
    """Letters and digits, punctuation and kana have a setting each."""
    raw = "ＡＢＣ１２３！（ｶﾞｷﾞ）ﾊﾟ"
    assert apply(step("fold_width"), raw) == "ABC123！（ガギ）パ"
    assert apply(step("fold_width", punctuation=True, kana=False), raw) == "ABC123!(ｶﾞｷﾞ)ﾊﾟ"
    assert apply(step("fold_width", letters=False, kana=False), raw) == raw


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("<p>Hi <b>you</b>&nbsp;&amp; me</p>", "\nHi you\xa0& me\n"),
        ("a<br/>b <a href='x' class=y>link</a>", "a\nb link"),
        ("a < b and <3 and x<y>z <email>", "a < b and <3 and x<y>z <email>"),
        ("x<script>alert('<b>')</script><style>p {}</style><!-- no\nno -->y", "xy"),
        ("open <!-- end", "open <!-- end"),
        ("`<b>` stays, <b>this</b> not\n```\n<p>\n```", "`<b>` stays, this not\n```\n<p>\n```"),
        ("AT&T &copy; &#8364;&#x20AC; & &unknown;", "AT&T © €€ & &unknown;"),
    ],
)
def test_html_becomes_text(raw: str, text: str) -> None:
    """Tags of HTML, comments and scripts go and entities are read; other angle brackets and code stay."""
    assert apply(step("strip_html"), raw) == text


@pytest.mark.parametrize(
    ("settings", "raw", "text"),
    [
        ({}, '[words](https://a.b/c_(d) "title") and ![alt](x.png)', "words and alt"),
        ({}, "[x] (y) [z]", "[x] (y) [z]"),
        ({}, "> they said\n>> earlier\n>\nI answer\n\n> and\nagain", "I answer\n\nagain"),
        ({}, ">:( angry\n>.< sad\n>>> 1 + 1\n>!spoiler!<", ">:( angry\n>.< sad\n>>> 1 + 1\n>!spoiler!<"),
        ({}, "**bold** # no", "**bold** # no"),
        ({}, "`[a](b)`", "`[a](b)`"),
        ({}, "Check that `x` > `y` holds.\nIf `a` > 5, stop.", "Check that `x` > `y` holds.\nIf `a` > 5, stop."),
        ({}, "> quoted with `code` inside\n> `all` of it\nMy answer.", "My answer."),
        ({}, "[the `call`](https://a.b) of `[x](y)`", "the `call` of `[x](y)`"),
        ({"links": "keep", "quotes": "keep"}, "> [a](b)", "> [a](b)"),
        (
            {"emphasis": "strip"},
            "## Title\n**bold** *it* __u__ ~~no~~ snake_case_name 2*3*4",
            "Title\nbold it u no snake_case_name 2*3*4",
        ),
    ],
)
def test_markdown_becomes_text(settings: dict[str, Any], raw: str, text: str) -> None:
    """Links lose their addresses and quotes go; marks of emphasis where asked; emoticons, prompts and code stay."""
    assert apply(step("strip_markup", **settings), raw) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("see https://x.com/a?b=1. Then", "see U. Then"),
        ("看https://a.com/b吧", "看U吧"),
        ("(https://en.wikipedia.org/wiki/A_(b)), HTTP://FOO.ORG!", "(U), U!"),
        ("https://de.wikipedia.org/wiki/Köln ist", "U ist"),
        ("www.foo.de, google.com/search?q=1 bit.ly/3xyz http://localhost:80/x", "U, U U U"),
        ("mail me@x.com or x.com", "mail me@x.com or U"),
        ("node.js and/or v1.2/x e.g/foo 3.14 a.b.c... ok.so", "node.js and/or v1.2/x e.g/foo 3.14 a.b.c... ok.so"),
        ("`curl https://a.b`", "`curl https://a.b`"),
    ],
)
def test_urls_make_place_for_a_placeholder(raw: str, text: str) -> None:
    """A URL ends before the sentence's punctuation and before Chinese; e-mail addresses and code stay."""
    assert apply(step("replace_urls", placeholder="U"), raw) == text


def test_what_is_removed_leaves_no_gap() -> None:
    """Without a placeholder the spaces around go as well, and lines stay lines."""
    assert (
        apply(step("replace_urls"), "see https://x.com for more: https://y.com\nok https://z.com")
        == "see for more:\nok"
    )
    assert apply(step("replace_handles"), "@bob hi @al\nyou") == "hi\nyou"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("@bob hi @bob_1!", "H hi H!"),
        ("u/foo_bar and /u/foo-bar said r/u/xyz", "H and H said r/u/xyz"),
        ("@a@mastodon.social hi", "H hi"),
        ("@小明 你好", "H 你好"),
        ("@bob@bob u/some_one@x u/some_one/u/some_one", "@bob@bob u/some_one@x u/some_one/u/some_one"),
        ("a@b.com at @ 5pm and/or u/s `@property`", "a@b.com at @ 5pm and/or u/s `@property`"),
    ],
)
def test_handles_make_place_for_a_placeholder(raw: str, text: str) -> None:
    """Twitter's, Reddit's and Mastodon's; e-mail addresses and code stay."""
    assert apply(step("replace_handles", placeholder="H"), raw) == text


def test_boilerplate_is_cut_out_whole() -> None:
    """Case and white space do not matter; a word does not end inside another, but anywhere in Chinese."""
    remove = step("remove_phrases", phrases=["as an AI language model,", "Sent from my iPhone", "hi", "以下是回答："])
    assert apply(remove, "As an  ai\nlanguage model, I think") == "I think"
    assert apply(remove, "Yes.\nSENT FROM MY IPHONE") == "Yes.\n"
    assert apply(remove, "this hidden 好的以下是回答：三") == "this hidden 好的三"


def test_bots_are_dropped_by_name_and_by_what_they_say() -> None:
    """Authors are patterns; who only ends like a bot stays."""
    drop_bots = step("drop_bots")
    for bot in ("AutoModerator", "RemindMeBot", "haiku_bot"):
        with pytest.raises(Drop, match="bot"):
            drop_bots(talk("Hi", "Ho", authors=("anna", bot)))
    with pytest.raises(Drop, match="bot"):
        drop_bots(talk("Hi", "I am a bot, and this  action was performed automatically."))
    kept = talk("I am a bot", "No", authors=("robot", "Abbott"))
    assert drop_bots(kept) == kept


def test_what_a_step_empties_is_counted_as_an_empty_turn() -> None:
    """A turn of nothing but a URL is empty then; it is no turn that is lost silently."""
    with pytest.raises(Drop) as drop:
        clean(talk("https://x.com", "Ho"), [step("replace_urls")])
    assert (drop.value.reason, drop.value.step) == ("empty_turn", "check_validity")
    assert contents(clean(talk("Hi https://x.com", "Ho"), [step("replace_urls")])) == ["Hi", "Ho"]

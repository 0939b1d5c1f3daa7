"""What the web chat makes of texts in a real browser: elements, never scripts; and whether everybody can use it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from serving import served
from web_pages import Complaints, EchoEngine, ended, last_answer, opened, say, violations, with_echo

NARROW = {"width": 390, "height": 844}
MARKDOWN = """\
# A heading with `code`

Some **bold**, *slanted* and ~~struck~~ text, snake_case_name, 2*3*4 and a \\*star\\*.
A second line; see https://example.org/a_(b), [a link](https://example.com/x) and [not one](javascript:alert(1)).

- first
  - nested **deep**
- second

3. three
4. four

> said before

| left | right |
|:-----|------:|
| 1    | `a\\|b` |

```python
def add(a, b):
    return "<b>" + a + b
```
שלום עולם"""
SCRIPTS = (
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "[x](javascript:window.hit=1) ![y](data:text/html,<script>window.hit=1</script>)",
    '[z](https://example.org/"onmouseover="window.hit=1)',
    "```<script>\n</code></pre><svg onload='window.hit = 1'>\n```",
    "| <iframe srcdoc='<script>parent.hit=1</script>'> |\n|---|",
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(with_echo(EchoEngine()), names={"echo": ""}) as running:
        yield running.url


@pytest.fixture
def page(url: str, browser: Browser, complaints: Complaints) -> Iterator[Page]:
    with opened(browser, url, complaints) as made:
        yield made


def test_markdown_becomes_elements(page: Page) -> None:
    """Headings, lists, tables, code and links of the web; a line of Hebrew runs from the right."""
    say(page, MARKDOWN)
    ended(page)
    body = last_answer(page).locator(".body")
    expect(body.locator("h3")).to_have_text("A heading with code")
    expect(body.locator("strong").first).to_have_text("bold")
    expect(body.locator("p em")).to_have_text(["slanted"])
    expect(body.locator("del")).to_have_text("struck")
    expect(body.locator("p").first).to_contain_text("snake_case_name, 2*3*4 and a *star*.")
    links = body.locator("a").evaluate_all("links => links.map(link => [link.href, link.rel, link.target])")
    rel = "noopener noreferrer nofollow"
    addresses = ("https://example.org/a_(b)", "https://example.com/x")
    assert links == [[address, rel, "_blank"] for address in addresses]
    expect(body.locator("ul ul li strong")).to_have_text("deep")
    assert body.locator("ol").evaluate("list => [list.start, list.children.length]") == [3, 2]
    expect(body.locator("blockquote")).to_have_text("said before")
    expect(body.locator("td")).to_have_text(["1", "a|b"])
    expect(body.locator("pre code")).to_have_text('def add(a, b):\n    return "<b>" + a + b')
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    body.get_by_role("button", name="Copy code").click()
    expect(body.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == 'def add(a, b):\n    return "<b>" + a + b'
    assert body.locator("p").last.evaluate("line => getComputedStyle(line).direction") == "rtl"


def test_scripts_in_messages_and_answers_do_nothing(page: Page) -> None:
    """What looks like HTML or a script is text, in what a person says, in the answer, in titles and after a reload."""
    for text in SCRIPTS:
        say(page, text)
        ended(page)
    page.reload()
    expect(page.locator("article")).to_have_count(2 * len(SCRIPTS))
    assert page.evaluate("window.hit") is None
    made = page.locator("#messages, #conversations")
    assert made.locator("script, img, iframe, svg:not(.icon), [onerror], [onload], [onmouseover]").count() == 0
    assert page.locator("a[href]:not([href^='http']):not(.skip)").count() == 0


@pytest.mark.timeout(90)
def test_markdown_of_any_kind_is_read_in_linear_time(page: Page) -> None:
    """Texts for which a careless parser, or a page, takes time by the square of their length; then this times out."""
    page.evaluate(
        """async () => {
            const { MarkdownView } = await import("./markdown.js");
            const pieces = ["*a ", "**a", "_a ", "`", "` a", "[", "[a](", "![a]", "~~a", "> ", "- ", "  ", "# #", "|-|",
                "http://%", "```", "\\\\", "<h", "*_**__", "1. ", "((", "--- "];
            for (const piece of pieces) {
                for (const text of [piece.repeat(8000), `# ${piece.repeat(8000)}x`, `${piece}\\n`.repeat(8000)]) {
                    new MarkdownView(document.createElement("div")).show(text);
                }
            }
        }"""
    )


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_is_accessible_wide_and_narrow(
    url: str, browser: Browser, complaints: Complaints, colours: str
) -> None:
    """axe-core finds nothing (names, roles, contrast); at 390 px nothing sticks out, and the list makes way."""
    with opened(browser, url, complaints, viewport=NARROW, color_scheme=colours) as page:
        say(page, MARKDOWN)
        ended(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        assert violations(page) == []
        page.get_by_role("button", name="Conversations").click()
        expect(page.get_by_role("button", name="New chat")).to_be_focused()
        page.get_by_role("button", name="A heading with", exact=False).first.click()
        expect(page.get_by_role("navigation", name="Conversations")).to_be_hidden()
        page.set_viewport_size({"width": 1180, "height": 760})
        assert violations(page) == []
        page.get_by_role("button", name="Settings").click()
        assert violations(page) == []

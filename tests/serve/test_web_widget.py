"""The widget in a real browser: on the example page, and on a site of another origin with styles of its own."""

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from serving import served
from web_pages import Complaints, EchoEngine, comes_true, opened, violations, web_site, with_echo

SITE = """<!doctype html><html lang="en"><title>A shop</title><link rel="icon" href="data:,">
<style>* {{ font-size: 40px !important; color: red !important; display: inline }} article {{ display: none }}</style>
<main><h1>A shop</h1></main>
<script src="{url}/widget.js" data-title="Ask the shop" data-greeting="Welcome! &lt;b&gt;" data-model="echo"
  data-system="You sell hats." data-max-tokens="40" data-temperature="0" data-color="#ffdd00" async></script></html>"""


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def test_a_visitor_of_another_site_chats(browser: Browser, complaints: Complaints, tmp_path: Path) -> None:
    """Button, greeting, streamed answer, failure and retry, Escape, the next page of the site, a new conversation."""
    with (
        web_site(tmp_path) as origin,
        served(with_echo(EchoEngine()), names={"echo": ""}, allow_origins=(origin,)) as running,
    ):
        (tmp_path / "index.html").write_text(SITE.format(url=running.url))
        with opened(browser, origin, complaints) as page:
            page.get_by_role("button", name="Ask the shop").click()
            panel = page.get_by_role("dialog", name="Ask the shop")
            expect(panel.get_by_role("textbox", name="Message")).to_be_focused()
            expect(panel.locator("article")).to_have_text("Welcome! <b>")
            ask(page, "how?")
            expect(panel.locator("article").last).to_contain_text("0.0 1.0 40 None [('system', 'You sell hats.')")
            ask(page, "fail **once**")
            expect(panel.get_by_role("alert")).to_contain_text("The chat is not available at the moment.")
            panel.get_by_role("button", name="Try again").click()
            expect(panel.locator("article").last).to_have_text("fail once")
            expect(panel.get_by_role("button", name="Send")).to_be_visible()
            assert panel.evaluate("panel => getComputedStyle(panel.querySelector('.hint')).fontSize") == "12.5px"
            assert violations(page) == []
            page.keyboard.press("Escape")
            expect(page.get_by_role("button", name="Ask the shop")).to_be_focused()
            page.reload()
            page.get_by_role("button", name="Ask the shop").click()
            expect(panel.locator("article.question")).to_have_text(["how?", "fail **once**"])
            panel.get_by_role("button", name="New conversation").click()
            expect(panel.locator("article")).to_have_count(1)
    complaints.expect("out of order")


def test_a_site_that_is_not_allowed_gets_no_button(browser: Browser, complaints: Complaints, tmp_path: Path) -> None:
    """The console says what is missing; the site's visitors see nothing broken."""
    with (
        web_site(tmp_path) as origin,
        served(with_echo(EchoEngine()), names={"echo": ""}, allow_origins=("https://other.example",)) as running,
    ):
        (tmp_path / "index.html").write_text(SITE.format(url=running.url))
        with opened(browser, origin, complaints) as page:
            expect(page.get_by_role("heading", name="A shop")).to_be_visible()
            assert comes_true(page, lambda: f"--allow-origin {origin}" in " ".join(complaints.lines))
            expect(page.get_by_role("button")).to_have_count(0)
    complaints.expect("CORS", "ERR_FAILED", "--allow-origin")


def test_the_example_page_has_the_widget_on_a_phone(browser: Browser, complaints: Complaints) -> None:
    """The page that comes with the server is a site with the widget; on a phone the chat takes the whole screen."""
    with (
        served(with_echo(EchoEngine()), names={"echo": ""}) as running,
        opened(browser, f"{running.url}/example.html", complaints, viewport={"width": 390, "height": 844}) as page,
    ):
        page.get_by_role("button", name="Ask Larch").click()
        panel = page.get_by_role("dialog", name="Ask Larch")
        assert panel.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
        ask(page, "<img src=x onerror=alert(1)>")
        expect(panel.locator("article").last).to_have_text("<img src=x onerror=alert(1)>")
        expect(panel.get_by_role("button", name="Send")).to_be_visible()
        assert panel.locator("img").count() == 0
        assert violations(page) == []

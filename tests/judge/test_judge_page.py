"""The page of a judging in a real browser: two judges, keyboard and phone, trouble, and hostile texts."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from streaming_models import Models

from chromium import CHROMIUM
from commands import start
from scaletrain.judge.items import Item, read_items, write_items
from scaletrain.judge.vote_store import VoteStore
from web_pages import violations

HOSTILE = (
    '<script>document.title = "taken"</script><img src=x onerror="document.title = \'taken\'"> **<b>bold</b>** '
    "`<i>code</i>`\n\n```html\n<svg onload=\"document.title = 'taken'\">\n```\n[link](javascript:alert(1))"
)
NAMES = ("hidden-base", "hidden-trained")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium as the system has it; the test is skipped without."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def items_file(tmp_path: Path) -> str:
    """Three prompts, the first with answers of somebody who means harm."""
    prompt = ({"role": "system", "content": HOSTILE}, {"role": "user", "content": f"Hello {HOSTILE}"})
    items = [Item(prompt, {NAMES[0]: HOSTILE, NAMES[1]: f"No. {HOSTILE}"})]
    items += [Item(({"role": "user", "content": f"{n}?"},), {NAMES[0]: f"a{n}", NAMES[1]: f"b{n}"}) for n in (1, 2)]
    path = str(tmp_path / "judging.jsonl")
    write_items(path, items)
    return path


@contextmanager
def serving(*arguments: str) -> Iterator[list[str]]:
    """`scaletrain judge serve` as a process of its own; yields the links that it prints."""
    process = start("judge", "serve", *arguments, "--port", "0")
    assert process.stdout is not None
    count = max(arguments.count("--judge"), 1)
    try:
        yield [process.stdout.readline().split(" ")[-1].strip() for _ in range(count)]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages, each in a browser profile of its own, and closes them; none may ask anybody but its server."""
    contexts, asked = [], []

    def open_page(link: str, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append((link, request.url)))
        page.on("pageerror", lambda error: pytest.fail(f"an error in the page: {error}"))
        page.goto(link)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert all(url.startswith(link.partition("#")[0]) for link, url in asked), asked


def shown(page: Any) -> tuple[str, str]:
    return page.locator("#left .text").inner_text(), page.locator("#right .text").inner_text()


def wait_for_other(page: Any, before: tuple[str, str]) -> None:
    """Wait until another pair, or the end, is shown."""
    page.wait_for_function(
        "before => document.querySelector('#judging').hidden"
        " || document.querySelector('#left .text').innerText !== before",
        arg=before[0],
    )


def test_two_judges_from_start_to_result(items_file: str, new_page: Callable[..., Any], tmp_path: Path) -> None:
    """One at a desk with the keyboard alone, one with a phone; what they chose is what the result counts."""
    with serving(items_file, "--judge", "Ana", "--judge", "Ben", "--overlap", "1") as (ana_link, ben_link):
        ana, chosen = new_page(ana_link), []
        for key in ("1", "3", "4"):
            ana.locator("#judging").wait_for()
            before = shown(ana)
            ana.keyboard.press(key)
            if key == "1":
                ana.keyboard.press("n")
                ana.keyboard.type("because 2 < 3")
                ana.keyboard.press("Escape")
            ana.keyboard.press("Enter")
            wait_for_other(ana, before)
            chosen.append(before)
        assert ana.locator("#headline").inner_text() == "That is all. Thank you!"
        ben = new_page(ben_link, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        for _ in range(3):
            ben.locator("#judging").wait_for()
            before = shown(ben)
            assert ben.evaluate("document.documentElement.scrollWidth <= 390")
            ben.get_by_text("Say why").tap()
            ben.locator("#reasons").get_by_text("helpful").tap()
            ben.locator("#why summary").tap()
            ben.locator("#choices label").nth(1).tap()
            ben.locator("#next").tap()
            wait_for_other(ben, before)
        assert ben.locator("#headline").inner_text() == "That is all. Thank you!"
        assert ben.locator("#progress").get_attribute("aria-valuenow") == "6"
    items = read_items(items_file)
    votes = VoteStore(f"{items_file}.votes.sqlite").votes()
    mine = [vote for vote in votes if vote.judge == "Ana"]
    assert [vote.choice for vote in mine] == ["left", "right", "both_bad"]
    assert mine[0].note == "because 2 < 3"
    for vote, (left, _) in zip(mine, chosen, strict=True):
        assert items.pairs[vote.pair].item.answers[vote.left][:2] == left[:2]
    assert [(vote.choice, vote.reasons) for vote in votes if vote.judge == "Ben"] == [("tie", ("helpful",))] * 3
    done = start("judge", "result", items_file, "--json")
    record = orjson.loads(done.communicate(timeout=120)[0])
    assert (record["votes"], record["pairs_judged"]) == (6, 3)


def test_what_models_write_is_text(items_file: str, new_page: Callable[..., Any]) -> None:
    """Markup in prompts and answers is shown, not done; nor do models' names reach the page."""
    with serving(items_file) as (link,):
        page = new_page(link)
        page.get_by_label("Your name").fill("Ana")
        page.get_by_role("button", name="Start").click()
        for _ in range(3):
            page.locator("#judging").wait_for()
            before = shown(page)
            if "script" in before[0]:
                assert '<script>document.title = "taken"</script><img src=x' in before[0]
                assert page.locator("#left strong").first.inner_text() == "<b>bold</b>"
                assert "<svg onload" in page.locator("#left pre code").inner_text()
                assert page.locator("#judging").locator("script, img, svg, b, i, a").count() == 0
            assert page.title() == "Which answer is better?"
            assert not any(name in page.content() for name in NAMES)
            page.keyboard.press("2")
            page.keyboard.press("Enter")
            wait_for_other(page, before)
        assert page.locator("#headline").inner_text().startswith("That is all")


def test_a_vote_can_be_changed_on_the_way_back(items_file: str, new_page: Callable[..., Any]) -> None:
    """U brings the pair before back, with what was said; Enter without a choice does nothing."""
    with serving(items_file, "--judge", "Ana") as (link,):
        page = new_page(link)
        page.locator("#judging").wait_for()
        first = shown(page)
        page.keyboard.press("Enter")
        assert "Choose first" in page.locator("#status").inner_text()
        page.keyboard.press("4")
        page.keyboard.press("Enter")
        wait_for_other(page, first)
        second = shown(page)
        page.keyboard.press("u")
        wait_for_other(page, second)
        assert shown(page) == first
        assert page.locator("#choices input:checked").get_attribute("value") == "both_bad"
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        wait_for_other(page, first)
    (vote,) = VoteStore(f"{items_file}.votes.sqlite").votes()
    assert (vote.choice, vote.revision) == ("left", 1)


def test_a_vote_is_not_lost_while_the_database_is_gone(items_file: str, new_page: Callable[..., Any]) -> None:
    """The page says so and keeps it, also when it is loaded again; when the database is back the vote goes in."""
    database = Path(f"{items_file}.votes.sqlite")
    with serving(items_file, "--judge", "Ana") as (link,):
        page = new_page(link)
        page.locator("#judging").wait_for()
        before = shown(page)
        away = database.with_suffix(".away")
        database.rename(away)
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        page.locator("#trouble").wait_for()
        assert "kept in this browser" in page.locator("#trouble").inner_text()
        page.reload()
        page.locator("#trouble").wait_for()
        away.rename(database)
        page.locator("#judging").wait_for()
        assert shown(page) != before
        assert page.locator("#trouble").is_hidden()
    (vote,) = VoteStore(str(database)).votes()
    assert vote.choice == "right"


def test_everything_can_be_reached_and_has_a_name(items_file: str, new_page: Callable[..., Any]) -> None:
    """For screen readers and for the Tab key; dark and light."""
    with serving(items_file, "--judge", "Ana") as (link,):
        page = new_page(link, color_scheme="dark")
        page.locator("#judging").wait_for()
        for name in ("1 A is better", "2 Equally good", "3 B is better", "4 Both bad"):
            assert page.get_by_role("radio", name=name).count() == 1
        for name in ("Answer A", "Answer B"):
            assert page.get_by_role("article", name=name).count() == 1
        assert page.get_by_role("progressbar", name="Votes of all judges").count() == 1
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.get_by_role("button", name="Switch between light and dark").click()
        assert page.evaluate(background) != dark
        page.reload()
        page.locator("#judging").wait_for()
        assert page.evaluate(background) != dark


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_covers_anything_and_axe_finds_nothing(
    items_file: str, new_page: Callable[..., Any], width: int, colours: str
) -> None:
    """Also in a narrow window of a machine with a keyboard, where the keys' names would take the choices' room."""
    with serving(items_file, "--judge", "Ana") as (link,):
        page = new_page(link, color_scheme=colours, viewport={"width": width, "height": 844})
        page.locator("#judging").wait_for()
        choices = [label.bounding_box() for label in page.locator("#choices label span").all()]
        assert max(box["x"] + box["width"] for box in choices) <= page.locator("#next").bounding_box()["x"]
        assert violations(page) == []


def test_without_a_link_of_ones_own_nothing_is_shown(items_file: str, new_page: Callable[..., Any]) -> None:
    """And a port that is taken is said at once."""
    with serving(items_file, "--judge", "Ana") as (link,):
        page = new_page(link.partition("#")[0])
        page.locator("#message").wait_for()
        assert page.locator("#headline").inner_text() == "A link of your own is needed"
        port = link.partition("#")[0].rstrip("/").rpartition(":")[2]
        taken = start("judge", "serve", items_file, "--port", port)
        errors = taken.communicate(timeout=60)[1]
        assert (taken.returncode, "give another with --host" in errors) == (2, True), errors
    assert isinstance(taken, subprocess.Popen)


def test_a_judge_asks_models_themselves(tmp_path: Path, models: Models, new_page: Callable[..., Any]) -> None:
    """Both answers appear as they come, a vote follows, and the way back leads to it; trouble leaves the question."""
    file = str(tmp_path / "none.jsonl")
    addresses = [part for name in ("red", "blue") for part in ("--live", f"{name}={models.url}#{name}")]
    with serving(file, "--judge", "Ana", *addresses) as (link,):
        page = new_page(link)
        page.get_by_label("Your message").fill("Who are you?")
        page.keyboard.press("Control+Enter")
        page.locator("#vote").wait_for()
        answers = shown(page)
        assert sorted(answers) == ["I am blue: Who are you?", "I am red: Who are you?"]
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        page.locator("#asking").wait_for()
        assert page.get_by_label("Your message").input_value() == ""
        page.get_by_role("button", name="Back").click()
        page.locator("#vote").wait_for()
        assert shown(page) == answers
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        page.locator("#asking").wait_for()
        models.shutdown()
        models.server_close()
        page.get_by_label("Your message").fill("Still there?")
        page.get_by_role("button", name="Ask").click()
        page.locator("#trouble").wait_for()
        assert page.get_by_label("Your message").input_value() == "Still there?"
    (vote,) = VoteStore(f"{file}.votes.sqlite").votes()
    assert (vote.choice, vote.revision) == ("right", 1)
    assert vote.right in answers[1]

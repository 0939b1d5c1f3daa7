"""The web chat in a real browser, on the real server: what a person does with it, and what must not happen to them."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from scaletrain.serve.keys import add_key
from serving import Running, served
from tiny import tiny_model_folder
from web_pages import (
    Complaints,
    EchoEngine,
    comes_true,
    ended,
    last_answer,
    message_box,
    opened,
    say,
    with_echo,
)


@pytest.fixture(scope="module")
def echo() -> EchoEngine:
    return EchoEngine()


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("votes") / "votes.jsonl"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, echo: EchoEngine, votes: Path) -> Iterator[Running]:
    folder = tiny_model_folder(tmp_path_factory.mktemp("served") / "model")
    with served(with_echo(echo), names={"echo": "", "tiny": folder}, feedback=votes) as running:
        yield running


@pytest.fixture
def page(server: Running, browser: Browser, complaints: Complaints) -> Iterator[Page]:
    with opened(browser, server.url, complaints) as made:
        yield made


def test_a_whole_chat_with_a_model(page: Page) -> None:
    """A real model answers; its answer is regenerated, a message is edited, and all of it is there after a reload."""
    page.get_by_label("Model").select_option("tiny")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Maximum length").fill("20")
    page.keyboard.press("Escape")
    say(page, "Hello! How are you?")
    expect(last_answer(page)).to_contain_text("tokens/s")
    page.get_by_role("button", name="Regenerate this answer").click()
    expect(page.get_by_text("What was answered here before is replaced.")).to_be_visible()
    ended(page)
    expect(page.locator("article")).to_have_count(2)
    page.get_by_label("Model").select_option("echo")
    page.get_by_role("button", name="Edit this message").click()
    page.get_by_label("Your message").fill("Other words")
    page.get_by_role("button", name="Send again").click()
    expect(last_answer(page).locator(".body")).to_have_text("Other words")
    say(page, "And more")
    expect(last_answer(page).locator(".body")).to_have_text("And more")
    ended(page)
    page.reload()
    expect(page.locator("article.question .bubble")).to_have_text(["Other words", "And more"])
    expect(page.locator("article.answer .body")).to_have_text(["Other words", "And more"])
    expect(page.get_by_label("Model")).to_have_value("echo")


def test_an_answer_that_is_stopped_stays_and_ends_on_the_server(page: Page, echo: EchoEngine) -> None:
    """Stop, Escape and leaving the page keep what was written and free the model."""
    for stop in (
        lambda: page.get_by_role("button", name="Stop the answer").click(),
        lambda: page.keyboard.press("Escape"),
        page.reload,
    ):
        say(page, "slowly one two three four five six seven eight nine ten")
        expect(last_answer(page).locator(".body")).to_contain_text("slowly")
        stop()
        expect(last_answer(page)).to_contain_text("stopped")
        expect(last_answer(page).locator(".body")).not_to_contain_text("ten")
        assert comes_true(page, lambda: echo.running == 0)
    expect(page.locator("article")).to_have_count(6)


def test_two_conversations_are_written_at_once(page: Page) -> None:
    """An answer goes on while another conversation is shown, and is whole when one comes back; another tab follows."""
    say(page, "slowly two")
    page.get_by_role("button", name="New chat").click()
    say(page, "quick")
    expect(last_answer(page).locator(".body")).to_have_text("quick")
    page.get_by_role("button", name="slowly two", exact=False).first.click()
    ended(page)
    expect(last_answer(page).locator(".body")).to_have_text("slowly two")
    tab = page.context.new_page()
    tab.goto(page.url)
    expect(tab.locator("article .body")).to_have_text("slowly two")
    say(tab, "from the other tab")
    ended(tab)
    expect(page.locator("article .body")).to_have_text(["slowly two", "from the other tab"])


def test_settings_reach_the_model(page: Page) -> None:
    """The system prompt, the parameters and the model chosen are those that are asked for; a wrong number is not."""
    page.get_by_role("button", name="Settings").click()
    for label, value in (("Temperature", "0.5"), ("Top p", "7"), ("Maximum length", "50"), ("Seed", "11")):
        page.get_by_label(label).fill(value)
    expect(page.get_by_text("Give a number from 0 to 1.")).to_be_visible()
    page.get_by_label("System prompt").fill("Be kind.")
    page.get_by_role("button", name="Close").click()
    say(page, "how?")
    expect(last_answer(page).locator(".body")).to_have_text("0.5 1.0 50 11 [('system', 'Be kind.'), ('user', 'how?')]")


def test_failures_are_told_in_plain_words_with_a_way_on(page: Page, complaints: Complaints) -> None:
    """A model that fails in mid-answer, and a server that is gone: what had come stays, and trying again works."""
    say(page, "fail once")
    expect(last_answer(page).get_by_role("alert")).to_contain_text("The server is starting, stopping or out of order.")
    expect(last_answer(page)).to_contain_text("fail")
    last_answer(page).get_by_role("button", name="Try again").click()
    expect(last_answer(page).locator(".body")).to_have_text("fail once")
    ended(page)
    page.context.set_offline(True)
    say(page, "anybody there?")
    expect(last_answer(page).get_by_role("alert")).to_contain_text("The server cannot be reached.")
    page.context.set_offline(False)
    last_answer(page).get_by_role("button", name="Try again").click()
    expect(last_answer(page).locator(".body")).to_have_text("anybody there?")
    complaints.expect("ERR_INTERNET_DISCONNECTED")


def test_a_browser_without_room_is_told_of(page: Page) -> None:
    """The chat goes on where the browser's storage is full, and says that it is not kept."""
    page.evaluate(
        """() => {
            const fill = (size) => {
                for (let i = 0; i < 9999; i += 1) localStorage.setItem(`${size} ${i}`, "x".repeat(size));
            };
            for (const size of [100000, 100]) try { fill(size); } catch { }
        }"""
    )
    say(page, "Is there room for this? " * 20)
    ended(page)
    expect(page.locator("#notice")).to_contain_text("The browser has no room to keep this conversation")
    expect(last_answer(page).locator(".body")).to_contain_text("Is there room")


def test_a_server_with_keys_asks_for_one(browser: Browser, complaints: Complaints, tmp_path: Path) -> None:
    """The page says that a key is needed, takes it, keeps it in this tab alone, and says when it is wrong."""
    key = add_key(tmp_path / "keys.json", "page")
    models = with_echo(EchoEngine())
    with (
        served(models, names={"echo": ""}, keys=tmp_path / "keys.json") as running,
        opened(browser, running.url, complaints) as page,
    ):
        page.get_by_role("button", name="Enter an API key").click()
        page.get_by_label("API key").fill("sk-wrong")
        page.keyboard.press("Tab")
        expect(page.get_by_text("The server does not accept this API key.")).to_be_visible()
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Tab")
        expect(page.locator("#problem")).to_be_empty()
        page.get_by_role("button", name="Close").click()
        say(page, "thank you")
        expect(last_answer(page).locator(".body")).to_have_text("thank you")
        assert key not in page.evaluate("JSON.stringify(localStorage)")
    complaints.expect("401")


def test_conversations_are_renamed_deleted_and_carried_elsewhere(page: Page, tmp_path: Path) -> None:
    """Export gives scaletrain's JSON lines, import takes them and names lines that are none, delete can be undone."""
    say(page, "one")
    ended(page)
    page.get_by_role("button", name="one", exact=True).hover()
    page.get_by_role("button", name="Rename one").click()
    page.get_by_label("Title").fill("First")
    page.keyboard.press("Enter")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    exported = Path(download.value.path()).read_bytes()
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "one"}]
    assert orjson.loads(exported) == {"messages": turns}
    page.get_by_role("button", name="First", exact=True).hover()
    page.get_by_role("button", name="Delete First").click()
    expect(page.get_by_role("button", name="First", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="First", exact=True)).to_have_count(1)
    file = tmp_path / "more.jsonl"
    file.write_bytes(exported + b'not JSON\n{"messages": [{"role": "tool", "content": ""}]}\n')
    page.locator("#import-file").set_input_files(file)
    expect(page.get_by_text("more.jsonl: 1 conversation imported.")).to_contain_text(
        "line 2: not JSON\nline 3: no such role: tool", use_inner_text=True
    )
    expect(page.get_by_role("button", name="one", exact=True)).to_have_attribute("aria-current", "true")


def test_votes_reach_the_file_of_feedback(page: Page, votes: Path) -> None:
    """A thumb is pressed, stays pressed, and is kept with what was asked and answered."""
    say(page, "vote for this")
    ended(page)
    thumb = page.get_by_role("button", name="A bad answer")
    thumb.click()
    expect(thumb).to_have_attribute("aria-pressed", "true")
    kept = orjson.loads(votes.read_bytes().splitlines()[-1])
    assert (kept["model"], kept["answer"], kept["vote"]) == ("echo", "vote for this", "down")
    assert kept["messages"] == [{"role": "user", "content": "vote for this"}]


def test_a_message_waits_for_the_models(page: Page) -> None:
    """Said while the page still asks what models there are, a message is sent once they are known: one time."""
    held: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    say(page, "early")
    message_box(page).press("Enter")
    expect(message_box(page)).to_have_value("early")
    assert comes_true(page, lambda: held)
    held[0].continue_()
    expect(last_answer(page).locator(".body")).to_have_text("early")
    expect(page.locator(".bubble")).to_have_count(1)
    expect(message_box(page)).to_have_value("")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    """A chat from the first key to the last without a pointer; what opens takes the focus, and gives it back."""
    page.keyboard.type("first")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    ended(page)
    expect(page.locator(".bubble")).to_have_text("first\nsecond", use_inner_text=True)
    expect(page.locator("#announcements")).to_have_text("Answer: first\nsecond")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Control+A")
    page.keyboard.type("third")
    page.keyboard.press("Enter")
    expect(last_answer(page).locator(".body")).to_have_text("third")
    ended(page)
    page.keyboard.press("Alt+Slash")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+N")
    expect(page.locator("article")).to_have_count(0)
    expect(message_box(page)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_focused()

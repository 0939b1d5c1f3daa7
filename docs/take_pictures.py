"""Takes the pictures of docs/web_chat.md, in Chromium, from a server that runs.

scaletrain serve MODEL --name smollm2-135m --feedback votes.jsonl
python docs/take_pictures.py http://127.0.0.1:8000
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FOLDER = Path(__file__).parent
WIDE = {"width": 1180, "height": 760}
PHONE = {"width": 390, "height": 780}
ANSWER_MS = 120_000
TIPS = "Give me three tips for a good night's sleep."
CODE = "Write a Python function that adds two numbers."


def main(url: str) -> None:
    """Talk to the model once in each colour and size, and once through the widget."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chat(browser, url, WIDE, "light", "What is the capital of France?", TIPS)
        ask(page, CODE)
        take(page, "web-chat")
        page = chat(browser, url, WIDE, "dark", CODE, TIPS)
        page.get_by_role("button", name="Settings").click()
        take(page, "web-chat-dark")
        take(chat(browser, url, PHONE, "light", TIPS), "web-chat-phone")
        widget(browser, url)
        browser.close()


def chat(browser: Browser, url: str, size: dict[str, int], colours: str, *questions: str) -> Page:
    """A page with a conversation for each question, the last of them open, and its answer found good."""
    page = browser.new_context(viewport=size, color_scheme=colours).new_page()
    page.goto(url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Maximum length").fill("60")
    page.keyboard.press("Escape")
    for question in questions:
        page.keyboard.press("Alt+N")
        ask(page, question)
    page.get_by_role("button", name="A good answer").click()
    return page


def widget(browser: Browser, url: str) -> None:
    page = browser.new_context(viewport=WIDE, color_scheme="light").new_page()
    page.goto(f"{url}/example.html")
    page.get_by_role("button", name="Ask Larch").click()
    ask(page, "Do you repair old bicycles?")
    take(page, "web-widget")


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Message", exact=True).fill(question)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible(timeout=ANSWER_MS)


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(300)
    page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1])

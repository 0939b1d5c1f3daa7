"""For tests of the web chat and the widget: Chromium, pages that must not complain, a model that says things back."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from chromium import CHROMIUM
from scaletrain.config_serve import ServeSection
from scaletrain.errors import EngineFailedError
from scaletrain.serve.local import local_models
from scaletrain.serve.models import Models, Origin, ServedModel
from scaletrain.serve.protocol import EngineStatus, Piece, Sampled
from tiny import tiny_tokenizer

_TIMEOUT_MS = 20_000
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)


@dataclass
class EchoEngine:
    """Says the last message back, a word at a time; so a test knows the answer, and decides how long it takes.

    "how?" is answered with how the answer was asked for, "slowly ..." takes a second a word, and "fail ..." fails
    after its first word, every other time.
    """

    context_tokens: int = 100_000
    failed: bool = False
    running: int = 0

    async def stream(self, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        turns = _TURN.findall(tiny_tokenizer().decode(prompt))
        text = turns[-1][1]
        if text == "how?":
            text = f"{sampled.temperature} {sampled.top_p} {sampled.max_tokens} {sampled.seed} {turns}"
        self.running += 1
        try:
            for index, word in enumerate(re.findall(r"\s*\S+", text)):
                await asyncio.sleep(1.0 if text.startswith("slowly") else 0.002)
                yield Piece(word, 1)
                if index == 0 and text.startswith("fail"):
                    self.failed = not self.failed
                    if self.failed:
                        raise EngineFailedError("out of order")
            yield Piece("", 1, finish_reason="stop")
        finally:
            self.running -= 1

    def status(self) -> EngineStatus:
        return EngineStatus(running=self.running, waiting=0, cached_tokens=0, cache_tokens=1)

    async def close(self) -> None:
        return None


def with_echo(echo: EchoEngine) -> Models:
    """Models of which the one called `echo` says things back, and any other is a folder for the real engine."""
    real = local_models(ServeSection(device="cpu"), root="bucket")

    async def load(origin: Origin) -> ServedModel:
        if origin.name != "echo":
            return await real.load(origin)
        return ServedModel(origin, {"echo": echo}, tiny_tokenizer(), close_engine=echo.close)

    async def newest(_source: str) -> str | None:
        return ""

    return Models(load, newest)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's Chromium, without a window; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (on Debian and Ubuntu: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Complaints:
    """What pages wrote to their console as errors; each test says which it expects."""

    lines: list[str] = field(default_factory=list)

    def expect(self, *parts: str) -> None:
        """Every line has one of these in it, and there is at least one line."""
        assert self.lines
        assert [line for line in self.lines if not any(part in line for part in parts)] == []
        self.lines.clear()


@contextmanager
def opened(browser: Browser, url: str, complaints: Complaints, **settings: Any) -> Iterator[Page]:
    """A page in a browser of its own (nothing kept from before), whose errors are collected."""
    context = browser.new_context(**{"viewport": {"width": 1180, "height": 760}, **settings})
    context.set_default_timeout(_TIMEOUT_MS)
    expect.set_options(timeout=_TIMEOUT_MS)
    page = context.new_page()
    page.on("console", lambda message: complaints.lines.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.lines.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.lines.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    try:
        page.goto(url)
        yield page
    finally:
        context.close()


def message_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


def say(page: Page, text: str) -> None:
    message_box(page).fill(text)
    message_box(page).press("Enter")


def ended(page: Page) -> None:
    """Wait until the answer is whole."""
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


def last_answer(page: Page) -> Locator:
    return page.locator("article.answer").last


def comes_true(page: Page, condition: Callable[[], object]) -> bool:
    """Whether a condition outside the page comes true while the page lives on."""
    return any(condition() or page.wait_for_timeout(50) for _ in range(_TIMEOUT_MS // 50))


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it is: names, roles, contrast and more."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def web_site(folder: Path) -> Iterator[str]:
    """Serve a folder's files as a site of its own, and yield its origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    thread = Thread(target=server.serve_forever, name="site")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A headless Chromium that opens a page and tells what it made of it, by the DevTools protocol through two pipes.

The protocol: https://chromedevtools.github.io/devtools-protocol/; messages are JSON that ends with a NUL byte.
"""

import base64
import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from chromium import CHROMIUM

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")


@dataclass
class Browser:
    """A running Chromium; `requests` are the URLs that its page asked for, `messages` what it wrote to the console."""

    to: BinaryIO
    answers: BufferedReader
    session: str = ""
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def open(self, url: str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page at a size in CSS pixels; below 600 as a phone does."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, which may have a policy against scripts of its own."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, height: int | None = None) -> None:
        """Write the page as a PNG, all of it or its first pixels."""
        width = self.evaluate("innerWidth")
        height = height or self.evaluate("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.to.write(orjson.dumps(message | ({"sessionId": self.session} if self.session else {})) + b"\0")
        while (answer := self._read()).get("id") != number:
            pass
        assert "result" in answer, f"{method}: {answer}"
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        read = bytearray()
        while not read.endswith(b"\0"):
            arrived = self.answers.peek()
            assert arrived, "Chromium has ended"
            read += self.answers.read(arrived.find(b"\0") + 1 or len(arrived))
        message: dict[str, Any] = orjson.loads(read[:-1])
        about = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(orjson.dumps(about).decode())
        return message


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium with a new profile in a folder, with one page; it is killed at the end."""
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    # Chromium reads commands from file descriptor 3 and answers on 4.
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_DUP2, their_input, 3),
        (os.POSIX_SPAWN_DUP2, their_output, 4),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),  # it misses a desktop
    ]
    command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = os.posix_spawn(command[0], command, dict(os.environ), file_actions=actions, setsid=True)
    os.close(their_input)
    os.close(their_output)
    with os.fdopen(our_output, "wb", buffering=0) as to, os.fdopen(our_input, "rb") as answers:
        try:
            found = Browser(to, answers)
            target = found.call("Target.createTarget", url="about:blank")["targetId"]
            found.session = found.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                found.call(f"{domain}.enable")
            yield found
        finally:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)

"""A chat in a real terminal of its own: keys, colours, Ctrl-C, history and completion."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from scaletrain.model.generate import stop_tokens
from scaletrain.serve.chat_terminal import SlashCompleter
from tiny import tiny_model, tiny_tokenizer

CHAT = """
import sys
from pathlib import Path
from scaletrain.model.generate import Sampling
from scaletrain.serve.chat import Models, chat
models = Models(find=Path, device="cpu")
chat(models.local(sys.argv[1]), models, sampling=Sampling(temperature=0, max_new_tokens=int(sys.argv[2])))
"""
_CONTROL = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()=>].?)")


class Terminal:
    """A pseudo-terminal and the chat in it."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._master = master
        self._seen = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, wanted: str, *, timeout_s: float = 120) -> str:
        """Read until a text appears behind what was read before, control sequences left out; returns up to its end."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self._seen:
            assert time.monotonic() < deadline, self._seen[-1000:]
            self._read()
        before, _, self._seen = self._seen.partition(wanted)
        return before

    def read_some(self, characters: int, *, timeout_s: float = 120) -> None:
        """Read until so many characters have appeared behind what was read before."""
        deadline = time.monotonic() + timeout_s
        while len(self._seen.replace(" ", "").strip()) < characters:
            assert time.monotonic() < deadline, self._seen[-1000:]
            self._read()

    def _read(self) -> None:
        if select.select([self._master], [], [], 1)[0]:
            self._seen += _CONTROL.sub("", os.read(self._master, 65536).decode(errors="replace"))


@contextmanager
def terminal(folder: Path, cache: Path, *, max_new_tokens: int) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", CHAT, str(folder), str(max_new_tokens)],
        stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def endless_model_folder(path: Path) -> Path:
    """A model whose answers never end of themselves: what would end them scores 0, less than some other token."""
    model, tokenizer = tiny_model(tie_word_embeddings=False, max_position_embeddings=100_000), tiny_tokenizer()
    with torch.no_grad():
        model.lm_head.weight[list(stop_tokens(model, tokenizer))] = 0.0
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_chat_in_a_terminal(tmp_path: Path) -> None:
    """A message of two lines, Ctrl-C in an endless answer, commands, an earlier line, and Ctrl-D."""
    folder = endless_model_folder(tmp_path / "model")
    cache = tmp_path / "cache"
    with terminal(folder, cache, max_new_tokens=90_000) as screen:
        screen.read_until("\n>")
        screen.type("How are you\\\rtoday?\r")
        screen.read_until("today?")
        screen.read_some(300)  # well into the endless answer: before it begins, Ctrl-C is the prompt's
        screen.process.send_signal(signal.SIGINT)
        assert "(stopped)" in screen.read_until("the first after")
        screen.read_until("\n>")
        screen.type("/set max_new_tokens 1\r")
        screen.read_until("max_new_tokens=1  seed=None")
        screen.type("/retry\r")
        screen.read_until("1 token ·")
        screen.read_until("\n>")
        screen.type("\x1b[A\x1b[A")  # up, twice: over /retry
        screen.read_until("/set max_new_tokens 1")
        screen.type("\x03")  # Ctrl-C at the prompt drops the line
        screen.read_until("/exit leaves")
        screen.read_until("\n>")
        screen.type("\x04")
        assert screen.process.wait(timeout=60) == 0
    history = cache / "scaletrain" / "chat-history"
    assert "+How are you\n+today?" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/s", ["/system", "/set", "/save"]),
        ("/set top", ["top_p", "top_k"]),
        ("/set top_p 0", []),
        ("a/b", []),
    ],
)
def test_commands_are_completed(typed: str, offered: list[str]) -> None:
    """Commands after a slash at the beginning, settings after /set, and nothing in what is said."""
    document = Document(typed, len(typed))
    assert [each.text for each in SlashCompleter().get_completions(document, CompleteEvent())] == offered


def test_files_are_completed_after_save_and_load(tmp_path: Path) -> None:
    """As in a shell."""
    (tmp_path / "talk.jsonl").touch()
    line = f"/load {tmp_path}/ta"
    offered = SlashCompleter().get_completions(Document(line, len(line)), CompleteEvent())
    assert [each.text for each in offered] == ["lk.jsonl"]

"""Talking in the terminal: in process with lines fed to it, and in a real terminal of its own."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from scaletrain.errors import ConfigError
from scaletrain.model.generate import Sampling, reply
from scaletrain.serve.chat import ChatSession, talk
from tiny import tiny_model, tiny_model_folder, tiny_tokenizer

GREEDY = Sampling(temperature=0, max_new_tokens=12)


@pytest.fixture
def session() -> ChatSession:
    return ChatSession(tiny_model(), tiny_tokenizer(), GREEDY, system_prompt=None)


def lines(*typed: str | BaseException) -> Callable[[str], str]:
    """Somebody who types these lines, then Ctrl-D."""
    left = iter([*typed, EOFError()])

    def read_line(_prompt: str) -> str:
        line = next(left)
        if isinstance(line, BaseException):
            raise line
        return line

    return read_line


def shown(session: ChatSession, *typed: str | BaseException) -> str:
    output = Console(file=io.StringIO(), width=200)
    talk(session, output, lines(*typed))
    assert isinstance(output.file, io.StringIO)
    return output.file.getvalue()


def test_each_turn_sees_the_ones_before(session: ChatSession) -> None:
    """The second answer is the model's to the whole conversation."""
    text = shown(session, "Hello!", "And you?")
    first, second = (message["content"] for message in session.messages[1::2])
    assert [message["role"] for message in session.messages] == ["user", "assistant"] * 2
    assert second == reply(tiny_model(), tiny_tokenizer(), session.messages[:3], GREEDY)
    assert first in text
    assert second in text


def test_reset_forgets_all_but_the_system_prompt(session: ChatSession) -> None:
    """/system sets the prompt of a new conversation, /reset keeps it."""
    shown(session, "Hello!", "/system Be brief.", "Hi", "/reset")
    assert session.messages == [{"role": "system", "content": "Be brief."}]
    shown(session, "/system")
    assert session.messages == []


def test_settings_change_on_the_way(session: ChatSession) -> None:
    """/set takes numbers that make sense, shows the rest, and says what is wrong with others."""
    text = shown(session, "/set temperature 0.5", "/set seed 3", "/set")
    assert session.sampling == Sampling(temperature=0.5, seed=3, max_new_tokens=12)
    assert "temperature=0.5" in text
    for wrong in ("heat 1", "temperature warm", "top_k 1.5", "top_p 2"):
        with pytest.raises(ConfigError):
            session.set(*wrong.split())
    shown(session, "/set seed none")
    assert session.sampling.seed is None


def test_a_saved_conversation_is_a_line_to_train_on(session: ChatSession, tmp_path: Path) -> None:
    """/save appends to a JSONL file in the format `messages`."""
    path = tmp_path / "talk.jsonl"
    shown(session, "/system Be brief.", "Hello!", f"/save {path}", "Once more", f"/save {path}")
    saved = [orjson.loads(line)["messages"] for line in path.read_bytes().splitlines()]
    assert saved[1] == session.messages
    assert saved[0] == session.messages[:3]


@pytest.mark.parametrize("line", ["/save", "/save /no/such/folder/x.jsonl", "/fly", "/set heat 1", "word " * 600])
def test_a_mistake_is_explained_and_the_chat_goes_on(line: str, session: ChatSession) -> None:
    """Neither a wrong command nor a message beyond the context ends the program or stays in the conversation."""
    text = shown(session, line, "Hello!")
    assert len(session.messages) == 2
    assert len(text.splitlines()) > 2


def test_text_is_shown_as_it_is(session: ChatSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like markup or an emoji code in an answer is not interpreted."""
    monkeypatch.setattr("scaletrain.serve.chat.stream_reply", lambda *_: iter(["[bold]a[/bold] ", ":smile:"]))
    assert "[bold]a[/bold] :smile:" in shown(session, "Hello!")


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(session: ChatSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning of an answer stays in the conversation; at the prompt Ctrl-C only tells how to leave."""

    def interrupted(*_: Any) -> Any:
        yield "It is "
        raise KeyboardInterrupt

    monkeypatch.setattr("scaletrain.serve.chat.stream_reply", interrupted)
    text = shown(session, "Hello!", KeyboardInterrupt())
    assert session.messages[-1] == {"role": "assistant", "content": "It is "}
    assert "(stopped)" in text
    assert "/exit leaves" in text


CHAT = """
import sys
from pathlib import Path
from scaletrain.model.generate import Sampling
from scaletrain.serve.chat import chat
chat(Path(sys.argv[1]), sampling=Sampling(temperature=0, max_new_tokens=int(sys.argv[2])),
     prompt=sys.argv[3] if len(sys.argv) > 3 else None, device="cpu")
"""


def test_one_prompt_prints_the_answer_and_nothing_else(tmp_path: Path) -> None:
    """--prompt is for scripts: stdout is the answer and a newline."""
    folder = tiny_model_folder(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", CHAT, str(folder), "12", "Hello!"], capture_output=True, timeout=120, check=True
    )
    expected = reply(tiny_model(), tiny_tokenizer(), [{"role": "user", "content": "Hello!"}], GREEDY)
    assert done.stdout.decode() == expected + "\n"


def test_a_terminal_chat_survives_ctrl_c(tmp_path: Path) -> None:
    """In a real terminal: a question, Ctrl-C in the middle of an endless answer, another question, Ctrl-D."""
    folder = tiny_model_folder(tmp_path / "model", eos_token_id=None, max_position_embeddings=100_000)
    master, slave = pty.openpty()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-c", CHAT, str(folder), "50000"],
        stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        read_until(master, b"\n> ")
        os.write(master, b"Hello!\n")
        read_until(master, b"Hello!\r\n")
        for _ in range(200):  # bytes of the answer: until it begins, Ctrl-C would end the line that is typed
            assert os.read(master, 1)
        process.send_signal(signal.SIGINT)
        read_until(master, b"(stopped)\r\n\r\n> ")
        os.write(master, b"/set max_new_tokens 1\n")
        read_until(master, b"max_new_tokens=1  seed=None\r\n\r\n> ")
        os.write(master, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert "Hello!" in (tmp_path / "cache" / "scaletrain" / "chat-history").read_text()


def read_until(descriptor: int, wanted: bytes, *, timeout_s: float = 120) -> bytes:
    """Read a terminal until something appears."""
    seen, deadline = b"", time.monotonic() + timeout_s
    while wanted not in seen:
        assert time.monotonic() < deadline, seen[-500:]
        if select.select([descriptor], [], [], 1)[0]:
            seen += os.read(descriptor, 65536)
    return seen

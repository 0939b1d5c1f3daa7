"""A conversation in the terminal, with lines fed to it: what is said, kept, changed and told."""

import base64
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from chat_parts import GREEDY, local_model, shown
from rich.console import Console

from scaletrain.errors import ConfigError
from scaletrain.model.generate import Sampling, reply
from scaletrain.serve.chat_commands import COMMANDS
from scaletrain.serve.chat_session import ChatSession
from scaletrain.serve.chat_terminal import Screen
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def session() -> ChatSession:
    return ChatSession(local_model(), GREEDY)


class Scripted:
    """A model that says what a test wants to hear."""

    name = "scripted"
    context_tokens = 100

    def __init__(self, *pieces: str | BaseException) -> None:
        self.pieces = pieces

    def stream(self, _messages: Any, _sampling: Any, tally: Any) -> Iterator[str]:
        tally.prompt_tokens, tally.answer_tokens = 10, 0
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            tally.answer_tokens += 1
            yield piece

    def count_tokens(self, _messages: Any) -> int | None:
        return None

    def others(self) -> list[str]:
        return ["scripted", "another"]


def contents(session: ChatSession) -> list[str]:
    return [message["content"] for message in session.messages]


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


def test_an_answer_can_be_had_again(session: ChatSession) -> None:
    """/retry asks the last question anew; only the new answer stays."""
    session.sampling = Sampling(temperature=2.0, max_new_tokens=12)
    shown(session, "Hello!", "And you?")
    before = contents(session)
    answers = set()
    for _ in range(10):  # any two of them may be equal
        shown(session, "/retry")
        assert contents(session)[:3] == before[:3]
        assert len(session.messages) == 4
        answers.add(contents(session)[3])
    assert len(answers) > 1


def test_a_question_can_be_changed(session: ChatSession) -> None:
    """/edit TEXT asks something else in the last question's place; without TEXT it is changed in the line editor."""
    shown(session, "Hello!", "And you?", "/edit What do you like?")
    assert contents(session)[2] == "What do you like?"
    assert contents(session)[3] == reply(tiny_model(), tiny_tokenizer(), session.messages[:3], GREEDY)
    shown(session, "/edit")
    assert contents(session)[2] == "What do you like? Really?"
    assert len(session.messages) == 4


def test_an_exchange_can_be_taken_back(session: ChatSession) -> None:
    """/undo forgets the last question with its answer, and says which."""
    text = shown(session, "Hello!", "And you?", "/undo")
    assert "Taken back: And you?" in text
    assert contents(session)[0] == "Hello!"
    assert len(session.messages) == 2


def test_a_failed_retry_leaves_the_old_answer(session: ChatSession) -> None:
    """Nothing is lost where nothing comes in its place."""
    shown(session, "Hello!")
    before = session.messages
    session.model = Scripted(KeyboardInterrupt())
    assert "(stopped)" in shown(session, "/retry")
    assert session.messages == before


def test_a_saved_conversation_is_a_line_to_train_on(session: ChatSession, tmp_path: Path) -> None:
    """/save appends to a JSONL file in the format `messages`."""
    path = tmp_path / "talk.jsonl"
    shown(session, "/system Be brief.", "Hello!", f"/save {path}", "Once more", f"/save {path}")
    saved = [orjson.loads(line)["messages"] for line in path.read_bytes().splitlines()]
    assert saved[1] == session.messages
    assert saved[0] == session.messages[:3]


def test_a_saved_conversation_goes_on(session: ChatSession, tmp_path: Path) -> None:
    """/load brings back the last one of a file, or the one of a line, with its system prompt."""
    path = tmp_path / "my talk.jsonl"
    shown(session, "/system Be brief.", "Hello!", f"/save {path}", "/system", "Other things", f"/save {path}")
    again = ChatSession(local_model(), GREEDY)
    shown(again, f"/load {path}")
    assert again.messages == session.messages
    text = shown(again, f"/load {path} 1", "And you?")
    assert "3 messages" in text
    assert contents(again)[:2] == ["Be brief.", "Hello!"]
    assert len(again.messages) == 5


def test_a_question_without_an_answer_is_answered_after_loading(session: ChatSession, tmp_path: Path) -> None:
    """A file may end with the user's message; /retry answers it."""
    path = tmp_path / "open.jsonl"
    path.write_bytes(orjson.dumps({"messages": [{"role": "user", "content": "Hello!"}]}))
    assert "/retry asks for one" in shown(session, f"/load {path}", "/retry")
    assert [message["role"] for message in session.messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty"),
        ("{", "not JSON"),
        ('{"text": "Hi"}', "no messages"),
        ('{"messages": [{"role": "king", "content": "Hi"}, {"role": "user"}]}', "message 2 has no content"),
    ],
)
def test_a_file_that_holds_no_conversation_is_refused(
    content: str, problem: str, session: ChatSession, tmp_path: Path
) -> None:
    """Every problem is told, and the conversation stays as it was."""
    (tmp_path / "x.jsonl").write_text(content)
    assert problem in shown(session, "Hello!", f"/load {tmp_path / 'x.jsonl'}")
    assert contents(session)[0] == "Hello!"


def test_models_change_on_the_way(session: ChatSession) -> None:
    """/model lists what there is and switches; the conversation goes on, and an unknown name changes nothing."""
    other = local_model(name="other", seed=1)
    text = shown(session, "Hello!", "/model", "/model nobody", "/model other", "And you?", models={"other": other})
    assert "* tiny" in text
    assert "there is no model nobody" in text
    assert session.model is other
    assert contents(session)[3] == reply(tiny_model(seed=1), tiny_tokenizer(), session.messages[:3], GREEDY)


def test_tokens_and_speed_are_told_after_an_answer(session: ChatSession) -> None:
    """The figures are the real ones: tokens of the answer, and of the context with it."""
    text = shown(session, "Hello!", "/tokens")
    used = session.model.count_tokens([{"role": "user", "content": "Hello!"}])
    assert used is not None
    assert "12 tokens at " in text
    assert f"context {used + 12} of 512 tokens" in text
    assert f"{session.model.count_tokens(session.messages)} of 512 tokens in 2 messages." in text


def test_an_answer_goes_to_the_clipboard() -> None:
    """/copy sends the terminal the control sequence that stands for it, and needs a terminal."""
    session = ChatSession(Scripted("naïve ", "👋"), GREEDY)
    assert "needs a terminal" in shown(session, "Hello!", "/copy")
    output = Console(file=io.StringIO(), force_terminal=True)
    Screen(output, output, markdown=False).copy("naïve 👋")
    assert isinstance(output.file, io.StringIO)
    assert output.file.getvalue() == f"\x1b]52;c;{base64.b64encode('naïve 👋'.encode()).decode()}\x07"


MISTAKES = ("/save", "/save /no/such/folder/x.jsonl", "/load /no/such/file", "/fly", "/set heat 1", "/set seed",
            "/undo", "/retry", "/edit", "/copy", "word " * 600)  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_explained_and_the_chat_goes_on(line: str, session: ChatSession) -> None:
    """Neither a wrong command nor a message beyond the context ends the program or stays in the conversation."""
    text = shown(session, line, "Hello!")
    assert len(session.messages) == 2
    assert len(text.splitlines()) > 3


def test_help_tells_every_command(session: ChatSession) -> None:
    """What there is can be found without the documentation, also by half of its name."""
    text = shown(session, "/help", "/sys Be brief.")
    assert all(name in text and command.help in text for name, command in COMMANDS.items())
    assert "did you mean /system?" in text


def test_text_is_shown_as_it_is() -> None:
    """What looks like markup or an emoji code in an answer is not interpreted."""
    session = ChatSession(Scripted("[bold]a[/bold] ", ":smile:"), GREEDY)
    assert "[bold]a[/bold] :smile:" in shown(session, "Hello!")


def test_an_answer_does_not_steer_the_terminal() -> None:
    """Control characters are shown as their pictures."""
    output = Console(file=io.StringIO(), force_terminal=True)
    Screen(output, output, markdown=False).show(["\x1b]0;owned\x07", "\x9b2J", "fine\n"])
    assert isinstance(output.file, io.StringIO)
    assert output.file.getvalue() == "␛]0;owned␇\ufffd2Jfine\n\n"


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said() -> None:
    """The beginning of an answer stays in the conversation; at the prompt Ctrl-C only tells how to leave."""
    session = ChatSession(Scripted("It is ", KeyboardInterrupt()), GREEDY)
    text = shown(session, "Hello!", KeyboardInterrupt())
    assert session.messages[-1] == {"role": "assistant", "content": "It is "}
    assert "(stopped)" in text
    assert "/exit leaves" in text


class Interrupted:
    """Ctrl-C comes just while this is destroyed: what is raised there is printed, and lost."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


class Interrupting(Scripted):
    def stream(self, messages: Any, sampling: Any, tally: Any) -> Iterator[str]:
        for number, piece in enumerate(super().stream(messages, sampling, tally)):
            if number == 1:
                Interrupted()
            yield piece


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_loses_stops_the_answer_too() -> None:
    """At the next piece; and afterwards Ctrl-C is again what it was."""
    before = signal.getsignal(signal.SIGINT)
    session = ChatSession(Interrupting("It is ", "no ", "use", "."), GREEDY)
    assert "(stopped)" in shown(session, "Hello!")
    assert session.messages[-1] == {"role": "assistant", "content": "It is no "}
    assert signal.getsignal(signal.SIGINT) == before

"""A chat in scripts: one question, or a JSONL file of them."""

import io
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from chat_parts import GREEDY, local_model

from scaletrain.errors import ConfigError
from scaletrain.model.generate import reply
from scaletrain.serve.chat_pipe import answer_lines, answer_once, read_question
from scaletrain.serve.chat_session import ChatSession
from tiny import tiny_model, tiny_model_folder, tiny_tokenizer

SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))
HELLO = [{"role": "user", "content": "Hello!"}]


def expected(messages: list[dict[str, str]]) -> str:
    return reply(tiny_model(), tiny_tokenizer(), messages, GREEDY)


def test_a_pipe_gets_the_answer_and_nothing_else(tmp_path: Path) -> None:
    """`echo QUESTION | scaletrain chat MODEL`: stdout is the answer and a newline."""
    folder = tiny_model_folder(tmp_path / "model")
    options = ("--temperature", "0", "--max-new-tokens", "12", "--device", "cpu")
    command = [SCALETRAIN, "chat", str(folder), *options]
    done = subprocess.run(command, input=b"Hello!\n", capture_output=True, timeout=120, check=True)
    assert done.stdout.decode() == expected(HELLO) + "\n"


def test_the_question_must_not_be_empty() -> None:
    """A pipe that brings nothing is a mistake somewhere, and is told."""
    with pytest.raises(ConfigError, match="the question is empty"):
        answer_once(ChatSession(local_model(), GREEDY), " \n", io.StringIO())


def test_what_is_no_text_is_told() -> None:
    """Bytes in another encoding are neither guessed nor passed on."""
    assert read_question(io.BytesIO("naïve\n".encode())) == "naïve\n"
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 2\)"):
        read_question(io.BytesIO("naïve".encode("latin-1")))
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        answer_once(ChatSession(local_model(), GREEDY), "na\udcefve", io.StringIO())


def test_every_line_is_answered() -> None:
    """Line by line: the answer is added, other fields stay, and a system prompt is for those that have none."""
    with_system = [{"role": "system", "content": "Be kind."}, *HELLO]
    lines = [orjson.dumps({"id": 7, "messages": HELLO}), b"\n", orjson.dumps({"messages": with_system})]
    output = io.BytesIO()
    answer_lines(local_model(), lines, output, GREEDY, system_prompt="Be brief.")
    first, second = map(orjson.loads, output.getvalue().splitlines())
    brief = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert first == {"id": 7, "messages": [*brief, {"role": "assistant", "content": expected(brief)}]}
    assert second["messages"][-1]["content"] == expected(with_system)


def test_a_bad_line_has_its_error_in_its_place() -> None:
    """The others are answered, lines stay in step, and at the end the command fails."""
    answered = {"role": "assistant", "content": "Hi"}
    lines = [b"{", orjson.dumps({"messages": [*HELLO, answered]}), orjson.dumps({"messages": HELLO})]
    output = io.BytesIO()
    with pytest.raises(ConfigError, match="2 of the conversations"):
        answer_lines(local_model(), lines, output, GREEDY, system_prompt=None)
    first, second, third = map(orjson.loads, output.getvalue().splitlines())
    assert "not JSON" in first["error"]
    assert "nothing to answer" in second["error"]
    assert third["messages"][-1]["content"] == expected(HELLO)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a MODEL to load"),
        (("some", "--url", "http://127.0.0.1:9/v1"), "one of the two"),
        (("some", "--model", "tiny", "--device", "tpu", "--prompt", "x", "--jsonl"), "3 problems"),
        (("--url", "http://127.0.0.1:9/v1"), "nobody answers there"),
    ],
)
def test_mistakes_on_the_command_line_end_with_2(arguments: tuple[str, ...], told: str) -> None:
    """Every problem is listed before anything is loaded."""
    done = subprocess.run([SCALETRAIN, "chat", *arguments], input="", capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout == ""

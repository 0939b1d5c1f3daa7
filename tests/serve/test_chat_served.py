"""A chat with a model behind an OpenAI-compatible URL: answers, usage, and everything such a server may do wrong."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from chat_parts import GREEDY, openai_server, shown

from scaletrain.errors import ConfigError, ModelError
from scaletrain.model.generate import Sampling, reply
from scaletrain.serve.chat import Models
from scaletrain.serve.chat_served import connect
from scaletrain.serve.chat_session import ChatSession
from tiny import tiny_model, tiny_tokenizer

HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with openai_server() as found:
        yield found


def test_a_served_model_answers_as_a_loaded_one(server: tuple[str, Any]) -> None:
    """The whole conversation goes to the server; tokens and context are what it tells."""
    url, handler = server
    session = ChatSession(connect(url, "tiny"), GREEDY, "Be brief.")
    text = shown(session, "Hello!", "/tokens", "And you?")
    assert session.messages[4]["content"] == reply(tiny_model(), tiny_tokenizer(), session.messages[:4], GREEDY)
    assert handler.requests[-1]["messages"] == session.messages[:4]
    assert handler.requests[-1]["max_tokens"] == 12
    assert "context 32 of 512 tokens" in text


def test_a_long_conversation_loses_its_oldest_exchanges(
    server: tuple[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As with a model loaded here: what the server says is too long is asked again, shorter; the rest is kept."""
    url, handler = server
    session = ChatSession(connect(url, "tiny"), GREEDY, "Be brief.")
    shown(session, *(f"question {number}" for number in range(5)))
    assert len(session.messages) == 11
    sent = handler.requests[-1]["messages"]
    assert [sent[0]["content"], sent[1]["content"]] == ["Be brief.", "question 1"]
    assert "left out" in caplog.text


def test_the_only_model_needs_no_name() -> None:
    """Where a server has several, they are listed."""
    with openai_server(models=("tiny",)) as (url, _):
        assert connect(url).name == "tiny"
    with openai_server() as (url, _):
        with pytest.raises(ConfigError, match="choose one with --model: tiny, busy"):
            connect(url)
        with pytest.raises(ConfigError, match=r"no model huge; there are tiny, busy"):
            connect(url, "huge")


def test_the_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent as a bearer token; without it, the error says which variable to set, and never the key."""
    with openai_server(key="secret-key") as (url, _):
        monkeypatch.delenv("SCALETRAIN_API_KEY", raising=False)
        with pytest.raises(ModelError, match=r"answers 401: Incorrect API key provided; set SCALETRAIN_API_KEY"):
            connect(url, "tiny")
        monkeypatch.setenv("SCALETRAIN_API_KEY", "wrong-key")
        with pytest.raises(ModelError) as caught:
            connect(url, "tiny")
        assert "wrong-key" not in str(caught.value)
        monkeypatch.setenv("SCALETRAIN_API_KEY", "secret-key")
        assert connect(url, "tiny").context_tokens == 512


@pytest.mark.parametrize(
    ("name", "told"),
    [("busy", "429: Too many requests; try again in 7 seconds"), ("broken", "ended in the middle"),
     ("failing", "the engine failed")],
)  # fmt: skip
def test_what_a_server_does_wrong_is_told_and_the_chat_goes_on(name: str, told: str, server: tuple[str, Any]) -> None:
    """Another model may be asked the same then; what came of the answer is kept."""
    url, _ = server
    session = ChatSession(connect(url, name), GREEDY)
    text = shown(session, "Hello!", "/model tiny", "And you?", models={"tiny": connect(url, "tiny")})
    assert told in text
    assert session.messages[-2]["content"] == "And you?"
    assert len(session.messages) == (2 if name == "busy" else 4)


def test_line_separators_in_an_answer_are_text(server: tuple[str, Any]) -> None:
    """Unicode has more of them than the protocol of the stream."""
    assert "".join(ChatSession(connect(server[0], "odd"), GREEDY).ask("Hello!")) == "a\u2028b\x85c"


def test_a_stopped_answer_stops_at_the_server(server: tuple[str, Any]) -> None:
    """Whoever stops reading closes the connection, and the server notices."""
    url, handler = server
    handler.ended.clear()
    session = ChatSession(connect(url, "forgetful"), GREEDY)
    with closing(session.ask("Hello!")) as pieces:
        assert [next(pieces) for _ in range(3)] == ["and "] * 3
    assert handler.ended.wait(timeout=60)
    assert session.messages[-1]["content"] == "and and and "


def test_settings_that_the_api_lacks_are_refused(server: tuple[str, Any]) -> None:
    """They would be ignored, so every one is named."""
    session = ChatSession(connect(server[0], "tiny"), Sampling(top_k=5, repetition_penalty=1.2))
    with pytest.raises(ConfigError) as caught:
        next(session.ask("Hello!"))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("http://127.0.0.1:9/v1", ModelError, "nobody answers there"),
        ("ftp://127.0.0.1/v1", ConfigError, "give the URL of an API"),
        ("http://me:secret@127.0.0.1/v1", ConfigError, "keep the key out of the URL"),
    ],
)
def test_a_wrong_url_is_told(url: str, error: type[Exception], told: str) -> None:
    """The error says what to do, and no secret."""
    with pytest.raises(error, match=told) as caught:
        connect(url)
    assert "secret" not in str(caught.value)


def test_a_page_that_is_no_api_is_told(server: tuple[str, Any]) -> None:
    """The usual mistake is a URL without /v1, where other pages answer."""

    class Page(server[1]):  # type: ignore[misc, name-defined]
        def _is_let_in(self) -> bool:
            self._answer(200, ["welcome"])
            return False

    with openai_server(handler_class=Page) as (url, _), pytest.raises(ModelError, match="no OpenAI-compatible API"):
        connect(url)


def test_model_means_the_same_server_first(server: tuple[str, Any]) -> None:
    """/model NAME is one of this server's models, /model URL NAME one of another server's."""
    url, _ = server
    models = Models(find=lambda name: pytest.fail(f"looked for {name}"))
    here = connect(url, "tiny")
    assert models.another("busy", beside=here).name == "busy"
    with openai_server(models=("elsewhere",)) as (other_url, _):
        assert models.another(other_url, beside=here).name == "elsewhere"
        assert models.another(f"{url} broken", beside=connect(other_url)).name == "broken"

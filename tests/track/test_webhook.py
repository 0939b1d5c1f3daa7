"""webhook: a message reaches a real server in the form that chat programs take, and its URL reaches nobody else."""

import pytest
from webhook_receiver import receiving

from scaletrain.track.webhook import UndeliveredError, check_url, post


def test_a_message_has_a_text_for_each_chat_program() -> None:
    """Slack and Mattermost read text, Discord content, up to 2,000 characters; programs the facts beside it."""
    with receiving() as received:
        post(received.url, "x" * 3000, facts={"kind": "finished", "step": 3})
    (message,) = received.messages
    assert message["text"] == message["content"] and len(message["content"]) < 2000
    assert message["allowed_mentions"] == {"parse": []}
    assert (message["kind"], message["step"]) == ("finished", 3)


def test_a_server_that_is_busy_is_asked_again_later_and_later() -> None:
    """Status 429 and 5xx pass; the message arrives once."""
    waits: list[float] = []
    with receiving() as received:
        received.answers = [429, 503]
        post(received.url, "hello", facts={}, sleep=waits.append)
    assert len(received.messages) == 1 and waits == [1.0, 2.0]


def test_a_server_that_refuses_is_asked_once() -> None:
    """A wrong URL does not become right; the error has its status and not its address."""
    waits: list[float] = []
    with receiving() as received:
        received.answers = [404]
        with pytest.raises(UndeliveredError) as caught:
            post(received.url, "hello", facts={}, sleep=waits.append)
    assert str(caught.value) == "it answers with status 404" and waits == []


def test_a_server_that_is_away_is_told_without_its_address() -> None:
    """After five tries."""
    waits: list[float] = []
    with pytest.raises(UndeliveredError) as caught:
        post("http://127.0.0.1:9/secret", "hello", facts={}, sleep=waits.append)
    assert str(caught.value) == "it cannot be reached (ConnectionRefusedError)" and len(waits) == 4


@pytest.mark.parametrize("url", ["hooks.example.com/x", "file:///etc/passwd", "https://", "http://[x"])
def test_what_is_no_url_is_known_before(url: str) -> None:
    """And is not shown."""
    assert check_url(url) == "holds no URL that begins with http:// or https://"
    assert check_url("https://hooks.example.com/x") is None

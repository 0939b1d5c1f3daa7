"""event_stream: however the bytes of a stream are cut into chunks, its events are the same."""

import pytest

from scaletrain.event_stream import DONE, EventStream

STREAM = 'event: x\ndata: {"a": "\u2028b\x85"}\r\n\n: a comment\ndata:{"c": 2}\n\ndata: [DONE]'.encode()


@pytest.mark.parametrize("size_bytes", [1, 2, 7, len(STREAM)])
def test_events_do_not_depend_on_the_chunks(size_bytes: int) -> None:
    """A line, and a character of it, may be cut anywhere; only a line feed ends it, or the connection."""
    events = EventStream()
    found = [data for at in range(0, len(STREAM), size_bytes) for data in events.feed(STREAM[at : at + size_bytes])]
    assert found + events.end() == ['{"a": "\u2028b\x85"}'.encode(), b'{"c": 2}', DONE]


def test_an_event_waits_for_its_end() -> None:
    """Half a line is no event, and at the end of the connection nothing is told twice."""
    events = EventStream()
    assert events.feed(b"data: on") == []
    assert events.feed(b"e\ndata: two\n") == [b"one", b"two"]
    assert events.end() == []

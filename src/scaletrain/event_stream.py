"""Server-sent events as OpenAI's API streams an answer: https://html.spec.whatwg.org/multipage/server-sent-events.html.

Only `data:` lines are read, one to an event, as this API sends them; the last one is DONE.
"""

DONE = b"[DONE]"


class EventStream:
    """Cuts what comes in chunks into the data of events, with or without asyncio around it."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of all events that end in this chunk.

        Lines end at line feeds alone: what else Unicode calls the end of a line (U+2028) may stand in an answer.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")]

    def end(self) -> list[bytes]:
        """The data of a last event that only the connection's end has ended."""
        return self.feed(b"\n")

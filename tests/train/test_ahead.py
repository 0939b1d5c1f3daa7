"""ahead: items come in order, errors where the item would have been, and nothing is left running."""

import threading
from collections.abc import Iterator

import pytest

from scaletrain.train.ahead import Ahead


def test_items_come_in_order_and_end() -> None:
    """A thread in between changes nothing about what is read."""
    with Ahead(iter(range(100))) as items:
        assert list(items) == list(range(100))


def test_an_error_comes_after_the_items_before_it() -> None:
    """The reader's error is raised where its item would have been."""

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken shard")

    with Ahead(failing()) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken shard"):
            next(items)


def test_leaving_early_stops_the_thread_and_closes_the_source() -> None:
    """A reader that is not read to its end gives up its resources."""
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with Ahead(endless()) as items:
        next(items)
    assert closed.wait(5)

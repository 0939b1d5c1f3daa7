"""Fixtures of the tests in a browser; packages of the browser are imported where they are used."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from web_pages import Complaints


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from web_pages import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def complaints() -> "Iterator[Complaints]":
    """What the pages of a test complained of, which must be nothing."""
    from web_pages import Complaints

    found = Complaints()
    yield found
    assert found.lines == []

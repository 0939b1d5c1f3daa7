"""The charts of pages in a real browser: where there are values at some places only, many lines, and things to pick."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from scaletrain.page import page as html_page
from scaletrain.page import section, table
from scaletrain.page.lines import Chart, Line, line_chart
from scaletrain.page.ranges import Ranged, ranges
from web_pages import Complaints, chromium, opened, violations

WORKERS = [1, 2, 4, 8]
PACES = Line(
    0, "strong", WORKERS, [100.0, 190.0, 350.0, 600.0], "dots", [(90, 110), (180, 200), (330, 370), (500, 700)]
)
BY_WORKERS = Chart("Throughput", "workers", [PACES, Line(8, "weak", [1, 2], [90.0, 180.0])], places=WORKERS, wide=True)
MANY = Chart(
    "Loss", "step", [Line(0, f"trial {n}", [0, 10], [5.0, 1.0 + n / 10], "ended", rank=n / 29) for n in range(30)]
)
COSTS = Chart(
    "Cost", "hours", [Line(n, f"{n} workers", [9.0 / n], [float(n)], "dot", label=f"{n}") for n in (1, 2, 3)], wide=True
)
SCORES = [Ranged(f"model {n}", n, (n - 1, n + 1), (n - 2, n + 2), f"model {n}: {n}\n95% interval") for n in range(3)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with a chart of each kind, and a table whose first column needs no heading."""
    charts = (line_chart(BY_WORKERS), line_chart(MANY), line_chart(COSTS), ranges(SCORES, name="scores"))
    path: Path = tmp_path_factory.mktemp("page") / "charts.html"
    sections = ["<h1>Charts</h1>", *(section("h", "", chart) for chart in charts), table(["", "cost"], [["one", "1"]])]
    path.write_bytes(html_page("charts", sections, footer="", charts=True))
    return path.as_uri()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    complaints = Complaints()
    with opened(browser, url, complaints) as page:
        yield page
    assert complaints.lines == []


def test_the_pointer_goes_from_place_to_place(page: Page) -> None:
    """With three and a half workers nothing was measured; a line that has no value at four is not told of there."""
    chart, tip = page.locator("svg").nth(0), page.locator(".tip:visible")
    box = chart.bounding_box()
    assert box is not None
    chart.hover(position={"x": box["width"] * (64 + 872 * 2.5 / 7) / 960, "y": 40})
    expect(tip).to_have_text("4 workersstrong350 (330 to 370)")
    page.mouse.move(0, 0)
    chart.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(tip).to_contain_text("2 workers")
    expect(tip).to_contain_text("weak180")


def test_of_many_lines_those_next_to_the_pointer_are_told(page: Page) -> None:
    """Twelve of thirty, from the top to the bottom, as they are drawn."""
    chart = page.locator("svg").nth(1)
    box = chart.bounding_box()
    assert box is not None
    chart.hover(position={"x": box["width"] * 0.97, "y": box["height"] * 0.88})
    names = page.locator(".tip:visible .row span").all_inner_texts()
    assert names == [f"trial {n}" for n in reversed(range(12))]


def test_the_nearest_thing_is_picked(page: Page) -> None:
    """By the pointer in both directions, and one after the other by the keys."""
    dots, scores, tip = page.locator("svg").nth(2), page.locator("svg").nth(3), page.locator(".tip:visible")
    dots.locator("circle").nth(1).hover()
    expect(tip).to_have_text("2 workers4.5 hoursCost: 2")
    page.mouse.move(0, 0)
    scores.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(tip).to_have_text("model 1: 195% interval")
    expect(page.locator(".item.picked")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(tip).to_have_count(0)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_charts_stand_in_nobody_s_way(browser: Browser, url: str, colours: str) -> None:
    """On a phone a wide chart scrolls by itself, a tap shows its values, and axe finds nothing to object to."""
    size = {"width": 390, "height": 780}
    complaints = Complaints()
    with opened(browser, url, complaints, viewport=size, color_scheme=colours, has_touch=True) as page:
        page.locator("svg").nth(0).tap(position={"x": 100, "y": 100})
        tip = page.locator(".tip:visible").bounding_box()
        assert tip is not None and tip["x"] >= 0 and tip["x"] + tip["width"] <= 390
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints.lines == []

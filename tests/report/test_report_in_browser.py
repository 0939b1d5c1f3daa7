"""The report in a real browser: values under the pointer and the keys, switches, both colours, and a phone."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from written_run import Act, add_evaluation, write_run

from scaletrain.report.report import write_report
from web_pages import Complaints, chromium, opened, violations


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page_of_two(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with faults and one without, the first with answers."""
    root = tmp_path_factory.mktemp("bucket")
    one = write_run(root, "faulty")
    two = write_run(root, "a-run-with-a-rather-long-name-<b>", acts=(Act(1, 100),), settings={"learning_rate": 3e-3})
    add_evaluation(one, step=0, reply="Blah.")
    add_evaluation(one, step=100, reply="Hello! How are you?")
    return f"file://{write_report([one, two], out=str(root / 'report.html'))}"


@pytest.fixture
def page(browser: Browser, page_of_two: str) -> Iterator[Page]:
    complaints = Complaints()
    with opened(browser, page_of_two, complaints) as page:
        yield page
    assert complaints.lines == []


def test_the_pointer_shows_the_values_of_every_run(page: Page) -> None:
    """Exactly as they were written, with what happened there; off the chart the tip is gone."""
    chart = page.locator("figure.chart.by-step", has_text="Training loss").locator("svg")
    box = chart.bounding_box()
    assert box is not None
    chart.hover(position={"x": box["width"] * (52 + (480 - 62) * 31 / 99) / 480, "y": box["height"] / 2})
    tip = page.locator(".tip:visible")
    expect(tip).to_contain_text("step 32")
    expect(tip).to_contain_text("a-run-with-a-rather-long-name-<b>, each step")
    expect(tip).to_contain_text("attempt 2 went on from step 32; attempt 1: a worker was lost, 8 steps lost")
    page.mouse.move(0, 0)
    expect(tip).to_have_count(0)


def test_arrow_keys_walk_along_a_chart(page: Page) -> None:
    """For those without a pointer; Escape ends it."""
    page.locator("figure.chart.by-step", has_text="Training loss").locator("svg").focus()
    tip = page.locator(".tip:visible")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(tip).to_contain_text("step 4")
    page.keyboard.press("Escape")
    expect(tip).to_have_count(0)


def test_switches_hide_runs_and_change_the_axis(page: Page) -> None:
    """A run goes from all charts and tables; losses by tokens take the place of those by step."""
    run = page.locator("g.run.run-1").first
    expect(run).to_be_visible()
    page.get_by_label("a-run-with-a-rather-long-name-<b>", exact=True).uncheck()
    expect(page.locator("g.run.run-1:visible, tr.of-run-1:visible")).to_have_count(0)
    page.get_by_label("tokens", exact=True).check()
    expect(page.locator("figure.by-tokens:visible")).to_have_count(2)
    expect(page.locator("figure.by-step:visible")).to_have_count(0)
    page.get_by_label("single steps").uncheck()
    expect(page.locator("g.run.raw:visible")).to_have_count(0)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_stands_in_anybodys_way(browser: Browser, page_of_two: str, colours: str) -> None:
    """Contrast, names and roles, as axe sees them, with a tip open; a phone scrolls in one direction only."""
    complaints = Complaints()
    with opened(browser, page_of_two, complaints, viewport={"width": 390, "height": 780}, color_scheme=colours) as page:
        page.locator("figure.chart:visible svg").first.focus()
        page.keyboard.press("ArrowRight")
        tip = page.locator(".tip:visible").bounding_box()
        assert tip is not None and tip["x"] >= 0 and tip["x"] + tip["width"] <= 390
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints.lines == []


def test_without_scripts_everything_is_there(browser: Browser, page_of_two: str) -> None:
    """Lines, marks, switches and tables, as where a mail program or a bucket's viewer lets no script run."""
    with opened(browser, page_of_two, Complaints(), java_script_enabled=False) as page:
        expect(page.locator("figure.by-step:visible")).to_have_count(2)
        page.get_by_label("faulty", exact=True).uncheck()
        expect(page.locator("g.run.run-0:visible")).to_have_count(0)

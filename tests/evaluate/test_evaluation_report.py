"""report.html: one file that needs nothing else, and in which nobody's words are markup."""

from dataclasses import replace
from pathlib import Path

import pytest
from measured import answers_of, measurement_of

from scaletrain import storage
from scaletrain.evaluate.charts import Lane, Mark, curve, lanes
from scaletrain.evaluate.curve import Curve, Point
from scaletrain.evaluate.evaluation import Evaluation
from scaletrain.evaluate.judging import Judgement, Verdict
from scaletrain.evaluate.report import publish, report_html
from scaletrain.evaluate.tasks import TaskScore
from web_pages import Complaints, chromium, opened, violations

SCRIPT = "<script>alert(1)</script>"


def _evaluation(*, words: str = "Hi.") -> Evaluation:
    groups = {"corpus": [0, 1, 0, 1], "language": [0, 0, 1, 1], "depth": [1, 2, 1, 2], "conversation": [0, 0, 1, 1]}
    before = measurement_of(answers_of([10] * 4, [40.0, 42.0, 38.0, 44.0], **groups), reply=words)
    after = measurement_of(
        answers_of([10] * 4, [30.0, 31.0, 32.0, 28.0], **groups), reply=words, step=8, checkpoint="f0"
    )
    points = (
        Point(0, 60.0, 55.0, 66.0, 1.5, "t"),
        Point(4, 40.0, 36.0, 44.0, 1.3, "t"),
        Point(8, 20.0, 18.0, 23.0, 1.1, "t"),
    )
    return Evaluation(
        run="talk",
        dataset_id="abc",
        before=before,
        after=after,
        trained=None,
        curve=Curve("abc", "tiny-1234", 3, "fp32", points),
        tasks=(
            ("before", TaskScore("capitals", "acc", 0.2, 0.1, 20)),
            ("after", TaskScore("capitals", "acc", 0.4, None, 20)),
        ),
        judgement=Judgement("http://x/v1", "referee", "base", "step", (Verdict(words, "after", "after", words),)),
    )


def test_the_page_shows_every_part() -> None:
    """Perplexity by corpus, language and turn, the curve, calibration, tasks, verdicts and answers."""
    html = report_html(_evaluation()).decode()
    for part in ("By corpus", "By language", "By turn", "Over training", "Calibration", "Benchmark tasks", "Judged by"):
        assert f"<h2>{part}" in html
    assert html.count("<svg") >= 6
    assert "60.34 → 20.59" in html


def test_what_models_and_strangers_wrote_is_no_markup() -> None:
    """A script in a prompt, an answer or a verdict is text."""
    html = report_html(_evaluation(words=SCRIPT)).decode()
    assert SCRIPT not in html
    assert "&lt;script&gt;" in html


def test_the_page_needs_no_network_and_runs_no_script() -> None:
    """Its own policy forbids both."""
    html = report_html(_evaluation()).decode()
    assert "default-src 'none'" in html
    assert "http://" not in html.replace("http://x/v1", "")
    assert "<script" not in html


def test_a_single_model_has_a_page_too() -> None:
    """Before training there is nothing to compare, and no curve."""
    alone = replace(_evaluation(), after=None, curve=None, tasks=(), judgement=None)
    html = report_html(alone).decode()
    assert "Over training" not in html
    assert "change" not in html.split("<style>")[0]


def test_both_pages_are_in_the_bucket(bucket_root: str) -> None:
    """report.html and summary.md lie beside the measurements."""
    publish(_evaluation(), root=bucket_root)
    folder = storage.join(bucket_root, "runs", "talk", "evaluation")
    assert storage.read_text(storage.join(folder, "summary.md")).startswith("# Evaluation of talk")
    assert storage.read_bytes(storage.join(folder, "report.html")).startswith(b"<!doctype html>")


@pytest.mark.parametrize("value", [1.0, 1e-6, 1e9])
def test_figures_of_any_size_can_be_drawn(value: float) -> None:
    """Equal figures, tiny ones and huge ones give a picture."""
    mark = Mark(value, value, value, "kept")
    assert "<circle" in lanes([Lane("x", [mark, mark], "same")], name="n")
    assert "<polyline" in curve(
        [Point(0, value, value, value, 1.0, "t"), Point(9, value, value, value, 1.0, "t")], name="n"
    )


def test_figures_without_bounds_are_left_out(tmp_path: Path) -> None:
    """A perplexity that is infinite has no place on a scale."""
    infinite = Mark(float("inf"), float("inf"), float("inf"), "kept")
    assert lanes([Lane("x", [infinite], "inf")], name="n") == ""
    assert "<circle" in lanes([Lane("x", [infinite, Mark(2.0, 1.5, 3.0, "kept")], "")], name="n")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_on_a_phone_what_scrolls_is_reached_by_keys(tmp_path: Path, colours: str) -> None:
    """Wide pictures, tables and long answers; axe finds nothing to object to, and the page is no wider than a phone."""
    path = tmp_path / "report.html"
    path.write_bytes(report_html(_evaluation(words="a rather long answer " * 60)))
    complaints = Complaints()
    phone = {"viewport": {"width": 390, "height": 780}, "color_scheme": colours}
    with chromium() as browser, opened(browser, path.as_uri(), complaints, **phone) as page:
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints.lines == []

"""report: one page of what happened in runs, which needs nothing else and in which nobody's words are markup."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import orjson
import pytest
from written_run import Act, add_evaluation, stamp, write_run

from scaletrain import storage
from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.layout import RunLayout, part_name
from scaletrain.page.lines import MOST_RUNS
from scaletrain.report.differences import differences
from scaletrain.report.report import check_runs, write_report

SCRIPT = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Whether tags close as they open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"


def report_of(*runs: RunLayout, out: str | None = None) -> str:
    return storage.read_text(write_report(runs, out=out))


def test_the_page_of_a_run_shows_all_that_happened(tmp_path: Path) -> None:
    """In the run's folder: charts, time by attempt, faults, evaluation, answers, configuration."""
    run = write_run(tmp_path, "faulty")
    for step, reply in ((0, "Blah."), (100, "Hello!")):
        add_evaluation(run, step=step, reply=reply)
    assert write_report([run], out=None) == storage.join(run.url, "report.html")
    html = report_of(run)
    for title in (
        *("Learning", "Where the time went", "What happened", "Speed", "Evaluation", "Answers over time"),
        "Configuration",
    ):
        assert f"<h2>{title}</h2>" in html, title
    for chart in (
        *("Training loss", "Validation perplexity", "Learning rate", "Gradient norm", "Throughput", "Memory"),
        *("Waiting for data", "Checkpoint stall", "Workers", "Cost", "Perplexity, evaluated"),
    ):
        assert f"<figcaption><b>{chart}</b>" in html, chart
    assert "<b>MFU</b>" not in html  # nothing is known of it on a CPU
    assert "attempt 1: a worker was lost, 8 steps lost" in html and "was killed" in html
    assert html.index("Blah.") < html.index("Hello!</div>")
    assert Tags(html).open == []


def test_runs_are_compared_by_what_differs(tmp_path: Path) -> None:
    """Each chart has them all; the table has only the fields in which they differ."""
    one = write_run(tmp_path, "one")
    two = write_run(tmp_path, "two", acts=(Act(1, 100),), settings={"learning_rate": 0.003})
    html = report_of(one, two, out=str(tmp_path / "both.html"))
    assert html.count('class="run run-0') > 8 and html.count('class="run run-1') > 8
    rows = html[html.index("<h2>Configuration") :].partition("<details>")[0]
    assert rows.count("<tr>") == 2 and "train.learning_rate" in rows and "0.003" in rows
    assert Tags(html).open == []


def test_what_strangers_wrote_is_no_markup(tmp_path: Path) -> None:
    """A prompt, an answer, a value of the configuration, the name of a copied folder."""
    run = write_run(tmp_path, f"a{SCRIPT.replace('/', '')}", settings={"note": SCRIPT})
    add_evaluation(run, step=100, reply=SCRIPT, prompt=f'">{SCRIPT}')
    html = report_of(run)
    assert html.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert Tags(html).open == []


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    """Its policy forbids it, and there is no address of anything in it."""
    html = report_of(write_run(tmp_path, "a"))
    assert "default-src 'none'" in html
    assert "src=" not in html.replace("default-src=", "") and "@import" not in html and "url(" not in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_a_run_that_has_not_trained_yet_has_a_page(tmp_path: Path) -> None:
    """It says so, and draws nothing."""
    html = report_of(write_run(tmp_path, "new", acts=()))
    assert "<figure" not in html and "<h2>Configuration</h2>" in html


def test_a_run_of_many_steps_stays_small(tmp_path: Path) -> None:
    """Twenty thousand steps with a spike: below half a megabyte, with the spike."""
    run = RunLayout(str(tmp_path), "long")
    storage.write_text(run.config, "name: long\ntrain: {steps: 20000, global_batch_size: 8}\n")
    storage.write_bytes(run.attempt(1), orjson.dumps({"started": stamp(0.0)}))
    losses = 2 + np.random.default_rng(0).normal(0, 0.1, 20_000)
    losses[17_777] = 123.456
    rest = ',"step_s":1.0,"data_wait_s":0.1,"checkpoint_stall_s":0.0,"tokens":9,"world_size":1}'
    lines = [
        f'{{"step":{step},"loss":{loss:.4f},"time":"{stamp(float(step))}"{rest}'
        for step, loss in enumerate(losses.tolist(), start=1)
    ]
    storage.write_text(storage.join(run.metrics, part_name(1, 1)), "\n".join(lines))
    html = report_of(run)
    assert len(html) < 500_000
    assert "17778,123.46" in html


def test_differences_name_what_one_of_them_lacks() -> None:
    """A field that is set in one alone, too; the name always differs and is none."""
    found = differences([{"name": "a", "x.y": 1, "z": [1]}, {"name": "b", "x.y": 1, "w": True, "z": [1]}])
    assert found == [("w", ("–", "true"))]


def test_runs_that_cannot_be_in_one_page_are_named_at_once(tmp_path: Path) -> None:
    """Those named twice, and too many to tell apart."""
    runs = [RunLayout(str(tmp_path), f"run-{number}") for number in range(MOST_RUNS)]
    with pytest.raises(ConfigError) as caught:
        check_runs([*runs, runs[3]])
    assert len(caught.value.problems) == 2
    with pytest.raises(NotFoundError, match="there is no run at"):
        write_report(runs[:1], out=None)

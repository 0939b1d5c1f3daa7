"""alerts: a webhook is told what happens to a run, once, by real messages to a real server."""

from collections.abc import Iterator

import pytest
from metric_rows import metrics, rows
from webhook_receiver import Received, receiving

from commands import wait_for
from scaletrain.config_track import AlertsSection
from scaletrain.errors import Interrupted, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.track.alerts import alerting

RUN = RunLayout("bucket", "watched")


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with receiving() as received:
        monkeypatch.setenv("SCALETRAIN_WEBHOOK", received.url)
        yield received


def test_a_finished_run_is_told(received: Received) -> None:
    """With the run's name for people, and facts for programs."""
    with alerting(AlertsSection(), RUN) as alerts:
        alerts.add(rows([1, 2]))
        alerts.finished(2)
    (message,) = received.messages
    assert message["text"] == "watched finished: all 2 steps are done and saved"
    assert (message["kind"], message["run"], message["run_url"]) == ("finished", "watched", RUN.url)


def test_a_failure_is_told_with_its_error_and_a_stop_is_not(received: Received) -> None:
    """Who asked for a stop knows of it."""
    for error in (Interrupted("saved"), TrainingError("workers were lost 3 times")):
        with pytest.raises(type(error)), alerting(AlertsSection(), RUN) as alerts:
            alerts.add(rows([7]))
            raise error
    (message,) = received.messages
    assert message["text"] == "watched failed: after step 7: workers were lost 3 times"


def test_a_run_without_a_step_for_long_is_told_once(received: Received) -> None:
    """The watch lives in the command's process, so it sees workers that hang."""
    section = AlertsSection(stalled_minutes=0.01, on=("stalled",))
    with alerting(section, RUN) as alerts:
        alerts.begin(total_steps=9)
        alerts.add(rows([5]))
        wait_for(lambda: received.messages, "an alert")
        alerts.add(rows([6]))
        wait_for(lambda: alerts.last_step == 6, "the next step")
        alerts.finished(6)
    assert received.kinds == ["stalled"]
    assert " minutes; step 5 was the last one" in received.messages[0]["text"]


def test_each_kind_is_told_once_an_hour(received: Received) -> None:
    """A loss that stays bad, or a forecast that stays too high, is one message each."""
    costs = {"cost_usd": 1.0, "usd_per_hour": 100.0}
    with alerting(AlertsSection(), RUN, budget_usd=2.0) as alerts:
        alerts.begin(total_steps=10_000)
        alerts.add([{**metrics(step).record(), **costs, "loss": None} for step in range(1, 31)])
    assert received.kinds == ["diverged", "over_budget"]


def test_a_webhook_that_refuses_is_one_warning_without_its_url(
    received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends as it would have."""
    received.answers = [403]
    with alerting(AlertsSection(), RUN) as alerts:
        alerts.finished(3)
    assert "the alert `finished` was not delivered: the webhook: it answers with status 403" in caplog.text
    assert received.messages == [] and "secret" not in caplog.text


def test_without_the_section_nothing_is_watched() -> None:
    """No thread, no environment variable."""
    with alerting(None, RUN) as alerts:
        alerts.begin(total_steps=9)
        alerts.add(rows([1]))
        alerts.finished(1)
    assert not alerts.are_wanted

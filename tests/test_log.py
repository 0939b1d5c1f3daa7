"""What is said while something long goes on."""

import threading

import pytest

from scaletrain import log


def test_long_work_says_how_far_it_is_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines in place of a bar, of what is not done yet; the work's own end ends them, also by an error."""
    monkeypatch.setattr(log, "_PLAIN_LINE_EVERY_S", 0.01)
    monkeypatch.setattr(log.logging.getLogger("scaletrain"), "propagate", True)
    caplog.set_level("INFO", "scaletrain")
    with pytest.raises(KeyError), log.progress(unit="answers") as bar:
        bar.add_task("done", total=1, completed=1)
        base, open_ended = bar.add_task("base", total=2000), bar.add_task("reading", total=None)
        bar.advance(base, 1500)
        bar.advance(open_ended)
        while not any("reading" in each for each in caplog.messages):
            threading.Event().wait(0.01)
        raise KeyError
    assert any(each.startswith("base: 1,500 of 2,000 answers") for each in caplog.messages)
    assert "reading: 1 answers" in caplog.messages
    assert not any(each.startswith("done") for each in caplog.messages)
    assert "progress" not in {thread.name for thread in threading.enumerate()}

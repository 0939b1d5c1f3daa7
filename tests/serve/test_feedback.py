"""The file of thumbs: what judge could not read is refused, and a half line takes no other with it."""

import errno
import os
from pathlib import Path

import orjson
import pytest

from scaletrain.errors import ConfigError
from scaletrain.judge.feedback import read_feedback
from scaletrain.serve.api_errors import ApiError
from scaletrain.serve.feedback import FeedbackFile

VOTE = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}], "answer": "Hi", "vote": "up"}


def test_a_thumb_that_judge_would_not_read_is_refused(tmp_path: Path) -> None:
    """An answer is to what a user said."""
    path = tmp_path / "feedback.jsonl"
    with pytest.raises(ApiError, match="last message has to be the user's"):
        FeedbackFile(path).add(orjson.dumps({**VOTE, "messages": [{"role": "assistant", "content": "Hi"}]}))
    assert path.read_bytes() == b""


def test_half_a_line_takes_no_other_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The next thumb begins a line of its own, and the import leaves out the half one alone, with a warning."""
    path = tmp_path / "feedback.jsonl"
    path.write_bytes(b'{"time": "2026')
    FeedbackFile(path).add(orjson.dumps(VOTE))
    FeedbackFile(path).add(orjson.dumps(VOTE))
    assert [thumb.vote for thumb in read_feedback(str(path))] == ["up", "up"]
    assert "1 lines are no thumbs" in caplog.text and "feedback.jsonl:1:" in caplog.text


def test_a_file_without_any_thumb_is_an_error(tmp_path: Path) -> None:
    """It is another file."""
    path = tmp_path / "other.jsonl"
    path.write_bytes(b'{"time": 3}\n')
    with pytest.raises(ConfigError, match=r"other\.jsonl:1"):
        read_feedback(str(path))


def test_a_thumb_that_was_written_in_part_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told to send it again."""
    path = tmp_path / "feedback.jsonl"
    kept, write = FeedbackFile(path), os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, line: write(file, line[:10]))
        with pytest.raises(ApiError, match=os.strerror(errno.ENOSPC)) as caught:
            kept.add(orjson.dumps(VOTE))
    assert caught.value.status == 503
    kept.add(orjson.dumps(VOTE))
    assert len(read_feedback(str(path))) == 1

from pathlib import Path

import pytest
from reading import conversations, read, rejects, texts

from scaletrain.data.formats import Rejected, plain_text


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_an_empty_line_ends_a_dialogue(tmp_path: Path) -> None:
    """Lines are turns of two who speak in turn; the last dialogue needs no empty line, and Windows' ends are read."""
    path = write(tmp_path / "subtitles.txt", "\r\n\r\nWhere?\r\n- Here.\r\nWhere is here?\r\n \r\nWho?\nMe.")
    items = read(path, "text")
    assert texts(items) == [["Where?", "- Here.", "Where is here?"], ["Who?", "Me."]]
    assert [item.source for item in items] == [f"{path}:3", f"{path}:7"]


def test_a_dialogue_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    """It is named by its first line and by the byte; its neighbours are read."""
    items = read(write(tmp_path / "a.txt", b"a\nb\n\nc\nd\xff\ne\n\nf\ng\n"), "text")
    assert texts(items) == [["a", "b"], ["f", "g"]]
    (rejected,) = [item for item in items if isinstance(item, Rejected)]
    assert rejected.source.endswith("a.txt:4")
    assert rejected.detail == "not UTF-8: invalid start byte (at byte 8)"


def test_a_text_without_empty_lines_is_no_dialogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A novel under the name of a dialogue takes no memory, and is counted."""
    monkeypatch.setattr(plain_text, "MAX_DIALOGUE_LINES", 10)
    items = read(write(tmp_path / "a.txt", "line\n" * 1000 + "\na\nb\n"), "text")
    assert texts(items) == [["a", "b"]]
    assert rejects(items) == {"bad_row": 1}


def test_a_chat_log_names_its_speakers(tmp_path: Path) -> None:
    """What one says in a row is one turn; a line without a name goes on; three are a crowd."""
    log = "amy: Hello\namy: Are you there?\nben: Yes: here\nand happy\n\nno name\n\namy: 1\nben: 2\ncem: 3\n"
    items = read(write(tmp_path / "chat.log", log), "chat_log")
    assert texts(items) == [["Hello\nAre you there?", "Yes: here\nand happy"]]
    assert conversations(items)[0].authors == ("amy", "ben")
    assert rejects(items) == {"bad_row": 1, "more_than_two_speakers": 1}

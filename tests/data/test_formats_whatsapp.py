"""Chats as WhatsApp exports them: both styles of dates, several lines, the app's own lines, and what is no export."""

from pathlib import Path

import pytest
from reading import conversations, read, rejects, texts

from scaletrain.data.formats import Rejected, whatsapp

ANDROID = """\
12/31/21, 9:40\u202fPM - Messages and calls are end-to-end encrypted. No one outside of this chat can read them.
12/31/21, 9:41\u202fPM - Ana: Are you coming tonight?
Bring: bread
and a 12/24 of something
12/31/21, 9:42\u202fPM - Ben: <Media omitted>
12/31/21, 9:42\u202fPM - Ben: IMG-20211231-WA0001.jpg (file attached)
12/31/21, 9:43\u202fPM - Ben: Yes: at ten - or so <This message was edited>
12/31/21, 9:44\u202fPM - Ana changed the subject to “ten: or so”
12/31/21, 9:45\u202fPM - Ana: This message was deleted
1/1/22, 12:01\u202fAM - Ben: Happy new year!
1/1/22, 12:02\u202fAM - Ana: <3
"""
IPHONE = """\
\ufeff[31.12.21, 21:40:59] Ana Müller: \u200eNachrichten sind Ende-zu-Ende-verschlüsselt.
[31.12.21, 21:41:03] Ana Müller: Kommst du heute?
Bring Brot mit
\u200e[31.12.21, 21:41:40] ~\u202fBen: \u200eBild weggelassen
[31.12.21, 21:42:00] ~\u202fBen: Ja, um zehn
[31.12.21, 21:42:10] ~\u202fBen: oder elf \u200e<Diese Nachricht wurde bearbeitet.>
[01.01.22, 0:01:00] Ana Müller: \u200eDu hast diese Nachricht gelöscht.
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_an_export_from_android_is_read_a_day_a_conversation(tmp_path: Path) -> None:
    """Lines that go on belong to their message; the app's own lines and media are counted, not learned from."""
    path = write(tmp_path, "WhatsApp Chat with Ben.txt", ANDROID)
    items = read(path, "whatsapp")
    assert texts(items) == [
        ["Are you coming tonight?\nBring: bread\nand a 12/24 of something", "Yes: at ten - or so"],
        ["Happy new year!", "<3"],
    ]
    assert [each.source for each in conversations(items)] == [f"{path}:1", f"{path}:10"]
    assert [each.authors for each in conversations(items)] == [("Ana", "Ben"), ("Ben", "Ana")]
    assert rejects(items) == {"system_message": 2, "media_or_deleted": 3}


def test_an_export_from_an_iphone_is_read_in_its_language(tmp_path: Path) -> None:
    """Marks of direction stand before what the app says in any language, and belong to no name."""
    items = read(write(tmp_path, "_chat.txt", IPHONE.replace("\n", "\r\n")), "whatsapp")
    assert texts(items) == [["Kommst du heute?\nBring Brot mit", "Ja, um zehn\noder elf"]]
    assert conversations(items)[0].authors == ("Ana Müller", "Ben")
    assert rejects(items) == {"media_or_deleted": 3}


@pytest.mark.parametrize(
    "head",
    [
        "31/12/2021, 21:41 - ",
        "2021-12-31, 21:41 - ",
        "31.12.2021, 21.41 - ",
        "31/12/21, 9:41 p. m. - ",
        "31.12.21 kl. 21.41 - ",
        "2021/12/31 下午9:41 - ",
        "2021. 12. 31. 오후 9:41 - ",
        "٣١/١٢/٢٠٢١، ٩:٤١ م - ",
        "[2021/12/31 下午9:41:03] ",
        "[12/31/21, 9:41:03 PM] ",
        "[31/12/2021, 21:41:03] ",
        "\u200e[31-12-2021 21:41:03] ",
    ],
)
def test_dates_of_many_countries_are_known(tmp_path: Path, head: str) -> None:
    """In the ways that phones set to other languages write them."""
    path = write(tmp_path, "a.txt", f"{head}Ana: 你好吗?\n{head}Ben: Good: and you?\n")
    assert texts(read(path, "whatsapp")) == [["你好吗?", "Good: and you?"]]


def test_what_is_no_export_and_what_is_not_utf8_are_bad_rows_with_a_remedy(tmp_path: Path) -> None:
    """A chat log is told what it is; a day that cannot be decoded is named, and its neighbours are read."""
    (rejected,) = read(write(tmp_path, "log.txt", "\namy: Hello\nben: Hi\n"), "whatsapp")
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.source) == ("bad_row", f"{tmp_path}/log.txt:2")
    assert "use format: chat_log" in rejected.detail
    path = tmp_path / "latin.txt"
    path.write_bytes(b"1/1/22, 9:41 - Ana: \xfc\n1/2/22, 9:41 - Ana: Hi\n1/2/22, 9:42 - Ben: Ho\n")
    items = read(path, "whatsapp")
    assert texts(items) == [["Hi", "Ho"]]
    assert rejects(items) == {"bad_row": 1}


def test_a_group_is_a_crowd_and_an_endless_day_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than two who speak on a day are no dialogue; a day may not take more memory than its bound."""
    day = "".join(f"1/1/22, 9:41 - {name}: Hello there\n" for name in "abc")
    assert rejects(read(write(tmp_path, "group.txt", day), "whatsapp")) == {"more_than_two_speakers": 1}
    monkeypatch.setattr(whatsapp, "MAX_DAY_CHARS", 50)
    for text in ("1/1/22, 9:41 - Ana: Hello\n" * 10, "1/1/22, 9:41 - Ana: Hello\n" + "and\n" * 100):
        assert rejects(read(write(tmp_path, "long.txt", text), "whatsapp")) == {"bad_row": 1}

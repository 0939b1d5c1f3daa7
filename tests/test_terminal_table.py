"""terminal_table: no value is cut; what does not fit leaves as a whole column, and is named."""

from rich.console import Console

from scaletrain.terminal_table import Column, FittingTable

COLUMNS = (
    Column("run", folds=True),
    Column("status"),
    Column("tokens\na second", is_number=True, leaves=1),
    Column("workers", is_number=True, leaves=2),
)
ROWS = (("small", "finished", "12,345", "2"), ("a-run-with-a-name-of-more-than-24-letters", "failed", "7", "16"))


def lines_of(width: int, *, caption: str = "") -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(FittingTable(COLUMNS, ROWS, caption=caption))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_where_there_is_room_all_columns_are_shown() -> None:
    """Each head in its lines, each row in one."""
    lines = lines_of(100, caption="3 more")
    assert [len(line) <= 100 for line in lines] == [True] * len(lines)
    assert lines[3].split() == ["small", "finished", "12,345", "2"]
    assert lines[4].split() == ["a-run-with-a-name-of-more-than-24-letters", "failed", "7", "16"]
    assert lines[-1] == "3 more"


def test_brackets_in_a_cell_are_text() -> None:
    """What looks like rich's markup is shown as it is."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(FittingTable((Column("modules"),), [["[q_proj, bold]"], ["[bold]"]]))
    assert "[q_proj, bold]" in captured.get() and "[bold]" in captured.get()


def test_in_a_narrow_terminal_columns_leave_in_their_order() -> None:
    """First the one that may be missed most; those that stay are whole."""
    text = "\n".join(lines_of(46))
    assert "12,345" in text and "workers" not in text.splitlines()[0]
    assert text.endswith("not shown in 46 columns: workers")
    assert " ".join(lines_of(36)).endswith("not shown in 36 columns: tokens a second, workers")


def test_a_long_name_is_folded_and_not_cut() -> None:
    """Over several lines, of which every letter is there."""
    text = "\n".join(lines_of(36))
    assert "…" not in text and "finished" in text and "failed" in text
    first = [line.split()[0] for line in text.splitlines()[3:5]]
    assert "".join(first) == "a-run-with-a-name-of-more-than-24-letters"

"""Tables in a terminal that cut no value: where a terminal is narrow, they leave whole columns out and say so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

_GAP = 2  # between two columns
_FOLDED = 24  # what is left at least to a column that folds


@dataclass(frozen=True)
class Column:
    """A column; `head` may have several lines. Of those with `leaves` above 0 the highest leaves first."""

    head: str
    is_number: bool = False
    folds: bool = False
    leaves: int = 0


class FittingTable:
    """Rows of cells, one for each column, as rich prints them; a short row ends in empty cells."""

    def __init__(self, columns: Sequence[Column], rows: "Sequence[Sequence[str | Text]]", *, caption: str = "") -> None:
        self._columns = columns
        self._rows = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
        self._caption = caption

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        widths = [self._width(place) for place in range(len(self._columns))]
        shown = self._fitting(widths, options.max_width)
        left_out = [" ".join(each.head.split()) for place, each in enumerate(self._columns) if place not in shown]
        notes = [self._caption] if self._caption else []
        if left_out:
            notes.append(f"not shown in {options.max_width} columns: {', '.join(left_out)}")
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for place in shown:
            column = self._columns[place]
            table.add_column(
                column.head,
                justify="right" if column.is_number else "left",
                no_wrap=not column.folds,
                overflow="fold",
                min_width=widths[place] if column.folds else None,
            )
        for row in self._rows:
            table.add_row(*(Text(cell) if isinstance(cell := row[place], str) else cell for place in shown))
        yield table
        if notes:
            yield Text("; ".join(notes), style="dim")

    def _fitting(self, widths: Sequence[int], width: int) -> list[int]:
        """The places of the columns that fit."""
        shown = list(range(len(self._columns)))
        while sum(widths[place] for place in shown) + _GAP * (len(shown) - 1) > width:
            last = max(shown, key=lambda place: self._columns[place].leaves)
            if not self._columns[last].leaves:
                break
            shown.remove(last)
        return shown

    def _width(self, place: int) -> int:
        from rich.cells import cell_len

        column = self._columns[place]
        lines = [*column.head.splitlines(), *(line for row in self._rows for line in str(row[place]).splitlines())]
        longest = max(map(cell_len, lines), default=0)
        return min(longest, _FOLDED) if column.folds else longest

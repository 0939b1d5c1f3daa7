"""An answer shown as Markdown while it is being written.

What is finished is printed once and stays; only the last block (a paragraph, a list, a piece of code) is drawn anew as
it grows, so that a long answer scrolls like any other output. Where blocks begin is what the parser of CommonMark says.
"""

from itertools import pairwise

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

from scaletrain.log import visible

_REFRESH_PER_S = 8
_LINES_KEPT_FREE = 2  # of the screen, below what is drawn anew


class MarkdownStream:
    """One answer; `write` its pieces, then `finish`. Control characters are shown, not obeyed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._block = ""
        self._live: Live | None = None
        self._is_first = True

    def write(self, piece: str) -> None:
        """Add to the answer."""
        self._block += visible(piece)
        *finished, growing = blocks_of(self._block) if "\n" in piece else [self._block]
        if finished:
            self._close()
            self._print(finished)
            self._block = growing
        if self._live is None:
            self._live = Live(
                console=self._console, refresh_per_second=_REFRESH_PER_S, transient=True, get_renderable=self._tail
            )
            self._live.start()

    def finish(self) -> None:
        """Print what is left for good."""
        self._close()
        self._print(blocks_of(self._block))
        self._block = ""

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, blocks: list[str]) -> None:
        for block in filter(str.strip, blocks):
            if not self._is_first:
                self._console.print()
            self._console.print(_rendered(block))
            self._is_first = False

    def _tail(self) -> "_Tail":
        return _Tail(self._block)


class _Tail:
    """The end of a growing block, as much of it as the screen holds: what is higher up could not be drawn anew."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(_rendered(self._text), options.update(height=None), pad=False)
        for line in lines[-max(1, console.height - _LINES_KEPT_FREE) :]:
            yield from line
            yield Segment.line()


def blocks_of(text: str) -> list[str]:
    """Cut a Markdown text before each of its blocks; whatever follows it, only the last one can still change."""
    starts = [token.map[0] for token in MarkdownIt().enable("table").parse(text) if token.level == 0 and token.map]
    lines = text.split("\n")
    edges = [0, *sorted(set(starts) - {0}), len(lines)]
    parts = ["\n".join(lines[start:stop]) for start, stop in pairwise(edges)]
    return [part + "\n" for part in parts[:-1]] + parts[-1:]


def _rendered(text: str) -> Markdown:
    return Markdown(text, hyperlinks=False)  # where a link leads is shown, not hidden behind its words

"""What pictures in a page are made of: the element and its frame, texts, things to point at, scales, round numbers.

Every text is escaped.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LONGEST_LABEL = 26


def svg(
    width: float,
    height: float,
    parts: Sequence[str],
    *,
    name: str,
    kind: str,
    top: float = 0,
    ratio: str = "xMidYMid",
    attributes: str = "",
) -> str:
    """A picture of parts, which are SVG already; `name` is what it is called where it cannot be seen."""
    return (
        f'<svg class="{kind}" viewBox="0 {top:.0f} {width:.0f} {height - top:.0f}" preserveAspectRatio="{ratio}" '
        f'role="img" aria-label="{escape(name)}"{attributes}>{"".join(parts)}</svg>'
    )


def figure(picture: str, *, title: str = "", note: str = "", kind: str = "", attributes: str = "") -> str:
    """A picture that the page's script makes answer to a pointer; `title` and `note` are text above it."""
    told = f' <span class="dim">{escape(note)}</span>' if note else ""
    caption = f"<figcaption><b>{escape(title)}</b>{told}</figcaption>" if title else ""
    return (
        f'<figure class="{f"chart {kind}".strip()}"{attributes}>{caption}<div class="scroll">{picture}</div></figure>'
    )


def text(
    x: float, y: float, content: str, *, anchor: str = "middle", middle: bool = False, kind: str = "dim tick"
) -> str:
    """A text that stands at y, or with `middle` has its middle there."""
    shift = ' dy=".35em"' if middle else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{shift} text-anchor="{anchor}">{escape(content)}</text>'


def axis_line(x1: float, y1: float, x2: float, y2: float) -> str:
    """A thin line behind what is drawn."""
    return f'<line class="axis" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(points: Iterable[tuple[float, float]]) -> str:
    """A line through points."""
    return f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def item(
    parts: Sequence[str], points: Iterable[tuple[float, float]], label: str, *, kind: str = "", style: str = ""
) -> str:
    """A thing in a picture, which says its label when the pointer is nearest to it, of all; `points` are where it is.

    Parts are SVG already; the first line of the label is its heading.
    """
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    styled = f' style="{style}"' if style else ""
    return (
        f'<g class="{f"item {kind}".strip()}"{styled} data-points="{places}" data-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</g>"
    )


def shaded(rank: float) -> str:
    """The style of a line by its rank, from 0 (the best) to 1 (the worst)."""
    return f"--run: color-mix(in oklab, var(--lost) {100 * rank:.0f}%, var(--kept))"


def short(label: str) -> str:
    """A label that has room beside a picture."""
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


@dataclass(frozen=True)
class Scale:
    """From a range of values to one of places, never beyond it; with `log` by logarithms, of a positive range."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.first + (value - low) / (high - low or 1) * (self.last - self.first)

    def ticks(self, *, at_most: int) -> list[float]:
        """Round numbers along it; those of logarithms where it spans enough."""
        if self.log and self.high > 4 * self.low:
            return log_ticks(self.low, self.high)
        return linear_ticks(self.low, self.high, at_most=at_most)

    @property
    def attribute(self) -> str:
        """As the page's script reads it."""
        return f"{self.low!r} {self.high!r} {self.first:g} {self.last:g}{' log' if self.log else ''}"


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones, at most eight."""
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(1 + 0.25 * n for n in range(36))):
        found = [
            float(f"{10.0**power * step:.10g}")
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for step in steps
            if low <= 10**power * step <= high
        ]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 8)]
    return [float(f"{low:.3g}"), float(f"{high:.3g}")]


def linear_ticks(low: float, high: float, *, at_most: int = 5) -> list[float]:
    """Round numbers from a low to a higher one, in equal steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / at_most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= at_most)
    return [place * step for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]

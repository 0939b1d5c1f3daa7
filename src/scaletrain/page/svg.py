"""What pictures in a page are made of: the element itself, scales, round numbers along an axis, short labels.

Every text is escaped.
"""

import math
from collections.abc import Sequence
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


def short(label: str) -> str:
    """A label that has room beside a picture."""
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


@dataclass(frozen=True)
class Scale:
    """From a range of values to one of places."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low or 1)
        return self.first + min(max(share, 0.0), 1.0) * (self.last - self.first)


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

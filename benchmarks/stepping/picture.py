"""The picture of the step benchmark: tokens a second of each arm with their range, and peak memory, case by case.

One SVG file that stands by itself: it brings its own background, and its colours for light and for dark pages.
"""

from collections.abc import Sequence
from statistics import median

from scaletrain.page.svg import Scale, axis_line, linear_ticks, svg, text
from stepping.report import OURS, Arm, Part

_WIDTH, _MARGIN, _NAMES = 900.0, 20.0, 156.0
_SPEED = (_MARGIN + _NAMES, 560.0)  # from where to where bars of tokens/s may reach
_MEMORY = (670.0, 800.0)
_ROW, _BAR, _HEAD, _FOOT = 26.0, 14.0, 46.0, 34.0
_STYLE = """
svg { --page: #ffffff; --ink: #17202a; --dim: #667180; --line: #e1e5ea; --ours: #0f8a7e; --other: #9fb0c3; }
@media (prefers-color-scheme: dark) {
  svg { --page: #171e26; --ink: #e6ebf0; --dim: #94a1b0; --line: #2a343f; --ours: #3cc0b0; --other: #58697c; }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: var(--ink); }
text.title { font-weight: 600; font-size: 15px; } text.dim { fill: var(--dim); } text.tick { font-size: 11.5px; }
.page { fill: var(--page); } .axis { stroke: var(--line); } .ours { fill: var(--ours); } .other { fill: var(--other); }
.range { stroke: var(--ink); stroke-width: 1.6; }
"""


def picture(parts: Sequence[Part]) -> str:
    """Draw all cases, one below the other; each has scales of its own, from zero."""
    drawn, top = [], _MARGIN
    for part in parts:
        drawn += _part(part, top)
        top += _height(part)
    background = f'<rect class="page" width="{_WIDTH:.0f}" height="{top:.0f}"/>'
    name = "Tokens a second and peak memory of a training step, by arm and size of model"
    size = f' width="{_WIDTH:.0f}" height="{top:.0f}" xmlns="http://www.w3.org/2000/svg"'
    return svg(_WIDTH, top, [f"<style>{_STYLE}</style>", background, *drawn], name=name, kind="step", attributes=size)


def _height(part: Part) -> float:
    return _HEAD + _ROW * len(part.arms) + _FOOT


def _part(part: Part, top: float) -> list[str]:
    ran = [arm for arm in part.arms.values() if arm.ran]
    fastest = max((max(arm.tokens_per_s) for arm in ran), default=0.0) or 1.0
    largest = max((arm.peak_bytes for arm in ran), default=0) / 1e9
    first, last = top + _HEAD, top + _HEAD + _ROW * len(part.arms)
    speeds = Scale(0.0, fastest, *_SPEED)
    parts = [
        text(_MARGIN, top + 16, part.title, anchor="start", kind="title"),
        text(_SPEED[0], top + 36, "tokens/s", anchor="start", kind="dim"),
        *_axis(speeds, first, last),
    ]
    memory = Scale(0.0, largest, *_MEMORY) if largest else None
    if memory is not None:
        parts += [
            text(_MEMORY[0], top + 36, "peak memory, GB", anchor="start", kind="dim"),
            *_axis(memory, first, last),
        ]
    for place, (name, arm) in enumerate(part.arms.items()):
        parts += _row(name, arm, first + _ROW * (place + 0.5), speeds, memory)
    return parts


def _axis(scale: Scale, first: float, last: float) -> list[str]:
    parts = []
    for tick in linear_ticks(scale.low, scale.high, at_most=4):
        parts.append(axis_line(scale(tick), first, scale(tick), last))
        parts.append(text(scale(tick), last + 16, f"{tick:,.6g}", kind="dim tick"))
    return parts


def _row(name: str, arm: Arm, y: float, speeds: Scale, memory: Scale | None) -> list[str]:
    kind = "ours" if name == OURS else "other"
    parts = [text(_SPEED[0] - 10, y, name, anchor="end", middle=True, kind="label")]
    if not arm.ran:
        return [*parts, text(_SPEED[0] + 6, y, arm.why_not[:52], anchor="start", middle=True, kind="dim")]
    slowest, middle, fastest = min(arm.tokens_per_s), median(arm.tokens_per_s), max(arm.tokens_per_s)
    parts.append(_bar(speeds, middle, y, kind))
    if fastest > slowest:
        parts.append(_range(speeds(slowest), speeds(fastest), y))
    parts.append(text(speeds(fastest) + 8, y, f"{middle:,.0f}", anchor="start", middle=True, kind="value"))
    if memory is not None and arm.peak_bytes:
        gigabytes = arm.peak_bytes / 1e9
        parts.append(_bar(memory, gigabytes, y, kind))
        parts.append(text(memory(gigabytes) + 8, y, f"{gigabytes:.1f}", anchor="start", middle=True, kind="value"))
    return parts


def _bar(scale: Scale, value: float, y: float, kind: str) -> str:
    x = scale(0.0)
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y - _BAR / 2:.1f}" width="{scale(value) - x:.1f}" height="{_BAR:.0f}" '
        'rx="2"/>'
    )


def _range(low: float, high: float, y: float) -> str:
    """A line from the slowest to the fastest round, with an end at each."""
    return (
        f'<path class="range" d="M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}V{y + 4:.1f}'
        f'M{high:.1f} {y - 4:.1f}V{y + 4:.1f}"/>'
    )

"""The report's pictures, as SVG in a page: flows from corpora to outcomes, and histograms.

Colours come from the page's style (classes `kept`, `lost`, `first`), so they follow its light or dark theme.
Every text is escaped. All numbers are counts; widths and heights are in SVG units.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from scaletrain.page.svg import short, svg

_WIDTH = 960
_LEFT, _RIGHT = 170, 230  # room for labels
_NODE = 14
_FLOW_HEIGHT = 300  # of all that flows, where no node is too thin to be labelled
_SLOT = 22  # least distance of two nodes of a column: a line of text
_GAP = 10


@dataclass(frozen=True)
class Stream:
    """What flows alike: the name of its node in each column, and how much it is; `kept` decides its colour."""

    nodes: tuple[str, ...]
    count: int
    kept: bool


def sankey(streams: Sequence[Stream], *, headings: Sequence[str], name: str) -> str:
    """Draw streams through the columns; nodes stand in the order in which the streams first name them."""
    total = sum(stream.count for stream in streams)
    columns = [_sizes(streams, column) for column in range(len(headings))]
    scale = _FLOW_HEIGHT / total if total else 0
    tops = [_stack(sizes, scale) for sizes in columns]
    heights = [
        max((tops[column][node] + max(count * scale, 1) for node, count in sizes.items()), default=0)
        for column, sizes in enumerate(columns)
    ]
    height = max(heights, default=0) + 40
    shifts = [28 + (height - 40 - own) / 2 for own in heights]
    xs = [_LEFT + (_WIDTH - _LEFT - _RIGHT - _NODE) * column / (len(columns) - 1) for column in range(len(columns))]
    parts = []
    for column in range(len(columns) - 1):
        parts += _ribbons(streams, column, tops, shifts, xs, scale)
    for column, sizes in enumerate(columns):
        anchor = "end" if column == 0 else "start"
        label_x = xs[column] + (-8 if column == 0 else _NODE + 8)
        heading_x = xs[column] + (_NODE if column == 0 else 0)
        parts.append(
            f'<text class="head" x="{heading_x:.1f}" y="14" text-anchor="{anchor}">{escape(headings[column])}</text>'
        )
        for node, count in sizes.items():
            y, size = tops[column][node] + shifts[column], max(count * scale, 1)
            kind = _kind(streams, column, node)
            parts.append(f'<rect class="{kind}" x="{xs[column]:.1f}" y="{y:.1f}" width="{_NODE}" height="{size:.1f}"/>')
            label = f'{escape(short(node))} <tspan class="dim">{count:,}</tspan>'
            middle = y + size / 2
            parts.append(
                f'<text class="label" x="{label_x:.1f}" y="{middle:.1f}" dy=".35em" text-anchor="{anchor}">{label}'
                f"<title>{escape(node)}: {count:,}</title></text>"
            )
    return f'<div class="scroll" tabindex="0">{svg(_WIDTH, height, parts, name=name, kind="sankey")}</div>'


def histogram(counts: Mapping[str, int], *, name: str) -> str:
    """Draw counts by "<= bound" as columns; bounds are powers of two, and those between that have none are shown."""
    bounds = {int(label.removeprefix("<= ")): count for label, count in counts.items()}
    if not bounds:
        return '<p class="dim">nothing to show</p>'
    bound, shown = min(bounds), []
    while bound <= max(bounds):
        shown.append((bound, bounds.get(bound, 0)))
        bound *= 2
    width, height, foot = 440, 200, 24
    step, highest = width / max(len(shown), 6), max(bounds.values())
    parts = [f'<line class="axis" x1="0" y1="{height - foot}" x2="{width}" y2="{height - foot}"/>']
    for place, (label, count) in enumerate(shown):
        size = count / highest * (height - foot - 20)
        x, y = place * step, height - foot - size
        bar = f'x="{x + 3:.1f}" y="{y:.1f}" width="{step - 6:.1f}" height="{size:.1f}" rx="2"'
        middle = f'x="{x + step / 2:.1f}" text-anchor="middle"'
        parts.append(f'<rect class="first" {bar}><title>up to {label:,}: {count:,}</title></rect>')
        parts.append(f'<text class="dim small" {middle} y="{y - 5:.1f}">{_brief(count) if count else ""}</text>')
        parts.append(f'<text class="label small" {middle} y="{height - 7}">≤{_bound(label)}</text>')
    return svg(width, height, parts, name=name, kind="histogram")


# ---- the parts of a picture of flows -------------------------------------------------------------------------------


def _sizes(streams: Sequence[Stream], column: int) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for stream in streams:
        sizes[stream.nodes[column]] += stream.count
    return dict(sizes)


def _stack(sizes: Mapping[str, int], scale: float) -> dict[str, float]:
    """Where each node of a column begins."""
    tops: dict[str, float] = {}
    y = before = 0.0
    for node, count in sizes.items():
        size = max(count * scale, 1)
        if tops:  # labels stand at the nodes' middles
            y += before + max(_GAP, _SLOT - (before + size) / 2)
        tops[node], before = y, size
    return tops


def _ribbons(
    streams: Sequence[Stream],
    column: int,
    tops: Sequence[Mapping[str, float]],
    shifts: Sequence[float],
    xs: Sequence[float],
    scale: float,
) -> list[str]:
    """Draw what flows from one column to the next, kept and lost apart."""
    links: Counter[tuple[str, str, bool]] = Counter()
    for stream in streams:
        links[stream.nodes[column], stream.nodes[column + 1], stream.kept] += stream.count
    order = [list(tops[column]), list(tops[column + 1])]
    ranked = sorted(links, key=lambda link: (order[0].index(link[0]), order[1].index(link[1]), not link[2]))
    starts = dict.fromkeys(links, 0.0)
    used: Counter[str] = Counter()
    for link in ranked:
        starts[link] = used[link[0]] * scale
        used[link[0]] += links[link]
    used.clear()
    drawn = []
    for link in sorted(ranked, key=lambda link: (order[1].index(link[1]), order[0].index(link[0]), not link[2])):
        source, target, kept = link
        size = max(links[link] * scale, 0.6)
        left, right = xs[column] + _NODE, xs[column + 1]
        top = tops[column][source] + shifts[column] + starts[link]
        end = tops[column + 1][target] + shifts[column + 1] + used[target] * scale
        used[target] += links[link]
        middle = (left + right) / 2
        path = (
            f"M{left:.1f} {top:.1f}C{middle:.1f} {top:.1f} {middle:.1f} {end:.1f} {right:.1f} {end:.1f}v{size:.1f}"
            f"C{middle:.1f} {end + size:.1f} {middle:.1f} {top + size:.1f} {left:.1f} {top + size:.1f}Z"
        )
        title = f"<title>{escape(source)} → {escape(target)}: {links[link]:,}</title>"
        drawn.append(f'<path class="ribbon {"kept" if kept else "lost"}" d="{path}">{title}</path>')
    return drawn


def _kind(streams: Sequence[Stream], column: int, node: str) -> str:
    """The class of a node: kept or lost where all that flows through it is, else neutral."""
    kept = {stream.kept for stream in streams if stream.nodes[column] == node}
    return "node" if len(kept) > 1 else "kept" if kept == {True} else "lost"


def _brief(number: int) -> str:
    """A count in a few characters: 950, 1.2k, 35k, 4.1M."""
    for bound, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= bound:
            return (
                f"{number / bound:.1f}".removesuffix(".0") + unit if number < 10 * bound else f"{number // bound}{unit}"
            )
    return str(number)


def _bound(number: int) -> str:
    """A power of two in a few characters: 512, 1k, 64k."""
    return f"{number >> 10}k" if number >= 1024 else str(number)

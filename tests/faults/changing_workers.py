"""A run that goes from 2 workers to 1, to 2, to 3 through four kills; as a command, it draws the losses.

PYTHONPATH=tests python tests/faults/changing_workers.py docs/faults-losses.svg
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from attempts_on_processes import KILL, Attempt, finish, signal_in_step

from scaletrain import attempts
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from workers import Prepared, make_prepared

STEPS = 40
SETTINGS = {"train__steps": STEPS, "checkpoint__every_steps": 5}
# Workers, and the step in the middle of which one of them is killed (None: to the end).
STAGES = ((2, 8), (1, 16), (2, 24), (3, 33), (3, None))


@dataclass(frozen=True)
class Losses:
    """The loss of each step, undisturbed and through the kills, and how many workers the latter was trained by."""

    undisturbed: tuple[float, ...]
    killed: tuple[float, ...]
    workers: tuple[int, ...]

    @property
    def largest_difference(self) -> float:
        return max(abs(one - other) for one, other in zip(self.undisturbed, self.killed, strict=True))


def train_through_kills(prepared: Prepared) -> Losses:
    """Train both runs."""
    finish(prepared, "always-two", **SETTINGS)
    for workers, step in STAGES:
        if step is None:
            finish(prepared, "changing", workers=workers, **SETTINGS)
        else:
            armed = signal_in_step(step, ranks=(workers - 1,), number=KILL)
            Attempt(prepared, "changing", workers=workers, arm=armed, **SETTINGS).wait()
    undisturbed, killed = (_metrics(RunLayout(prepared.root, name)) for name in ("always-two", "changing"))
    return Losses(
        undisturbed=tuple(float(str(line["loss"])) for line in undisturbed),
        killed=tuple(float(str(line["loss"])) for line in killed),
        workers=tuple(int(str(line["world_size"])) for line in killed),
    )


def _metrics(run: RunLayout) -> list[dict[str, object]]:
    return read_records(run.metrics, last_step_of=attempts.read_attempts(run).last_step_of)


# ---- the picture ---------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 300, 50, 20, 40, 40
_COLOURS = {1: "#c2572b", 2: "#2b6cb0", 3: "#2f855a"}


def draw(losses: Losses) -> str:
    """The losses as an SVG: a line for the undisturbed run, a dot for each step of the other, coloured by workers."""
    low, high = min(losses.undisturbed) - 0.1, max(losses.undisturbed) + 0.1

    def place(step: int, loss: float) -> tuple[float, float]:
        x = _LEFT + (step - 1) / (STEPS - 1) * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - loss) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    line = " ".join("{},{}".format(*place(step, loss)) for step, loss in enumerate(losses.undisturbed, start=1))
    dots = [
        '<circle cx="{}" cy="{}" r="3.5" fill="{}"/>'.format(*place(step, loss), _COLOURS[workers])
        for step, (loss, workers) in enumerate(zip(losses.killed, losses.workers, strict=True), start=1)
    ]
    marks = [
        f'<text x="{place(step, low)[0]}" y="{_HEIGHT - 15}" text-anchor="middle">{step}</text>'
        for step in (1, *range(10, STEPS + 1, 10))
    ]
    levels = [
        f'<text x="{_LEFT - 8}" y="{place(1, level)[1] + 4}" text-anchor="end">{level:.1f}</text>'
        for level in (low + 0.1, high - 0.1)
    ]
    legend = [
        f'<circle cx="{_LEFT + 260 + 90 * workers}" cy="20" r="3.5" fill="{colour}"/>'
        f'<text x="{_LEFT + 270 + 90 * workers}" y="24">{workers} worker{"s" * (workers > 1)}</text>'
        for workers, colour in _COLOURS.items()
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#333">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<polyline points="{line}" fill="none" stroke="#999" stroke-width="1.5"/>',
        *dots,
        *marks,
        *levels,
        f'<text x="{_LEFT}" y="24">loss by step: undisturbed (line), through kills (dots):</text>',
        *legend,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Train both runs, write the picture, and print the largest difference."""
    with tempfile.TemporaryDirectory() as folder:
        losses = train_through_kills(make_prepared(Path(folder)))
    Path(sys.argv[1]).write_text(draw(losses))
    print(f"the largest difference of a loss is {losses.largest_difference:.1e}; workers {losses.workers}")


if __name__ == "__main__":
    main()

"""The traces that come with scaletrain: synthetic, made by this file from a seed, not observed on any cloud.

    python -m scaletrain.simulate.synthetic FOLDER

Prices are shares of the on-demand price: their logarithm is an AR(1) process of hourly steps around a mean, as slow as
spot prices are now. Machines are taken at random, the more often the dearer they are. What is assumed of each kind:

    calm      about 10% of machines are taken in a month, prices near 40% of on-demand
    busy      about 10% in a day, prices near 60%, dearer in the afternoon
    scarce    as busy, and no more than 6 to 24 machines can be had in each zone, fewer in the afternoon
"""

import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

_START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
_HOURS = 14 * 24
_ZONES = ("a", "b")
_OBSERVED = 1000  # machines, of which interruptions are counted
_STAYS = 0.97  # of a deviation, after an hour


@dataclass(frozen=True)
class Kind:
    """`price` is a share of on-demand, `taken_per_hour` of one machine, `noise` of the price's logarithm in an hour."""

    seed: int
    price: float
    noise: float
    taken_per_hour: float
    afternoon: float
    most: int | None = None


KINDS = {
    "calm": Kind(seed=1, price=0.40, noise=0.01, taken_per_hour=0.10 / 730, afternoon=0.0),
    "busy": Kind(seed=2, price=0.60, noise=0.04, taken_per_hour=0.10 / 24, afternoon=1.0),
    "scarce": Kind(seed=3, price=0.60, noise=0.04, taken_per_hour=0.10 / 24, afternoon=1.0, most=24),
}


def synthetic_trace(name: str) -> str:
    """The text of a trace: two weeks of two zones, hour by hour; the same at every call."""
    kind = KINDS[name]
    random = Random(kind.seed)
    header = ["time", "machine_type", "zone", "price_of_on_demand", "interruptions", "machines"]
    lines = [
        f"# synthetic ({name}), made by scaletrain.simulate.synthetic with seed {kind.seed}; not observed anywhere",
        ",".join([*header, *(["capacity"] if kind.most else [])]),
    ]
    for zone in _ZONES:
        deviation = 0.0
        for hour in range(_HOURS):
            deviation = _STAYS * deviation + random.gauss(0.0, kind.noise)
            pressure = math.exp(3 * deviation) * (1 + kind.afternoon * _afternoon(hour % 24))
            price = min(1.0, kind.price * math.exp(deviation) * (1 + 0.2 * kind.afternoon * _afternoon(hour % 24)))
            taken = _poisson(random, _OBSERVED * kind.taken_per_hour * pressure)
            time = (_START + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%SZ")
            cells = [time, "*", zone, f"{price:.3f}", str(taken), str(_OBSERVED)]
            if kind.most:
                cells.append(str(max(4, min(kind.most, round(kind.most / pressure)))))
            lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def _afternoon(hour: int) -> float:
    """From 0 at night to 1 at 16:00."""
    return max(0.0, math.cos((hour - 16) / 24 * 2 * math.pi))


def _poisson(random: Random, mean: float) -> int:
    """How many arrivals of a Poisson process there are in a time in which `mean` are expected."""
    count, passed = 0, random.expovariate(1.0)
    while passed < mean:
        count, passed = count + 1, passed + random.expovariate(1.0)
    return count


if __name__ == "__main__":
    for each in KINDS:
        (Path(sys.argv[1]) / f"{each}.csv").write_text(synthetic_trace(each))

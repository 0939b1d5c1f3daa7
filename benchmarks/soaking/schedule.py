"""The faults of a sitting: which, when, and to whom, as a function of the seed alone."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

# What is done, and what a user of stock Ray Train has at best where the fault is made in another way for it.
KINDS = {
    "worker-killed": "SIGKILL to a worker",
    "worker-frozen": "SIGSTOP to a worker, SIGCONT after 3 to 15 s",
    "worker-ended": "SIGTERM to a worker, SIGKILL 1 s later",
    "node-killed": "SIGKILL to everything on a node; a new node joins after 3 to 15 s",
    "notice-30s": "the cloud says that it takes a node, and does 30 s later; a new node joins after 3 to 15 s",
    "notice-5s": "the same, 5 s later",
    "driver-killed": "SIGKILL to the driver; the same command again at once",
    "cluster-killed": "SIGKILL to everything on all nodes, head and driver too; a new cluster, the same command",
    "store-refuses": "every other request to the bucket is answered 503, for 20 s",
    "uploads-reset": "every other connection that uploads is reset, for 20 s",
    "bit-flipped": "one bit of the newest committed checkpoint flips, then SIGKILL to a worker",
}
_LEAST_S = 20.0  # between two faults, so that what the sitting itself mends (a new node) is mended before the next


@dataclass(frozen=True)
class Fault:
    """One fault: `at_s` is after the sitting's beginning; `victim`, `wait_s` and `seed` say to whom, and how."""

    number: int
    at_s: float
    kind: str
    victim: int
    wait_s: float
    seed: int

    def record(self) -> dict[str, object]:
        """The fault as plain data."""
        return asdict(self)


def make_schedule(seed: int, *, sitting: int, count: int, mean_s: float, kinds: Sequence[str]) -> list[Fault]:
    """Draw a sitting's faults; each kind comes at least twice where there are enough.

    Times between faults are exponential beyond a least one (a Poisson process with dead time); their mean is `mean_s`.
    """
    source = random.Random(f"{seed}/{sitting}/{count}/{mean_s}/{','.join(kinds)}")
    least_s = min(_LEAST_S, mean_s / 2)
    drawn = [*kinds] * min(2, count // len(kinds))
    drawn += [source.choice(kinds) for _ in range(count - len(drawn))]
    source.shuffle(drawn)
    found, at_s = [], 0.0
    for number, kind in enumerate(drawn):
        at_s += least_s + source.expovariate(1 / (mean_s - least_s))
        found.append(
            Fault(
                number,
                round(at_s, 1),
                kind,
                source.randrange(2),
                round(source.uniform(3, 15), 1),
                source.randrange(2**32),
            )
        )
    return found

"""Which samples made which step: one line a step, chained by hash, so that nothing can be lost or repeated unseen."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaletrain.data.order import mix
from scaletrain.errors import CheckpointError

GENESIS = "0" * 64


@dataclass(frozen=True)
class LedgerLine:
    """The samples of one step (1-based), in the order of the data, and the hash that chains it to the step before."""

    step: int
    samples: tuple[int, ...]
    hash: str

    def record(self) -> dict[str, object]:
        return {"step": self.step, "samples": list(self.samples), "hash": self.hash}


def next_line(previous_hash: str, step: int, samples: npt.NDArray[np.int64]) -> LedgerLine:
    """Chain a step's sample ids, shape [global_batch_size], to the hash of the step before."""
    digest = hashlib.sha256(bytes.fromhex(previous_hash))
    digest.update(step.to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(samples, dtype="<i8").tobytes())
    return LedgerLine(step=step, samples=tuple(samples.tolist()), hash=digest.hexdigest())


def check_chain(records: Iterable[Mapping[str, object]]) -> str:
    """Verify every line from step 1 on; returns the last hash.

    Raises CheckpointError that names the first step which is missing or does not fit its hash.
    """
    previous = GENESIS
    for expected, record in enumerate(records, start=1):
        step, samples = record["step"], record["samples"]
        if step != expected:
            raise CheckpointError(f"the ledger lacks step {expected}: the next line is of step {step}")
        line = next_line(previous, expected, np.asarray(samples, dtype=np.int64))
        if line.hash != record["hash"]:
            raise CheckpointError(f"the ledger's line of step {step} does not fit its hash: it was changed or damaged")
        previous = line.hash
    return previous


def batch_digest(samples: npt.NDArray[np.int64], first_position: int) -> int:
    """A number that adds up over micro batches and ranks: the sum over (position, id) pairs of 32 mixed bits.

    The sum over all ranks equals that of the whole batch only if every sample was read once, at its place. It is
    exact in a float64 for up to 2 million samples. `samples` has shape [n]; the first stands at `first_position`.
    """
    positions = np.arange(first_position, first_position + len(samples), dtype=np.uint64)
    mixed = mix(mix(positions) ^ samples.astype(np.uint64))
    return int((mixed >> np.uint64(32)).sum())

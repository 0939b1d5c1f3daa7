"""AdamW whose moments take a byte each (Dettmers et al. 2022, arXiv:2110.02861), by bitsandbytes.

A moment is a code of 256 values times the largest magnitude of its block of 256 elements. Vectors (norms, biases), of
which there are few, keep moments of fp32. Checkpoints hold fp32 whatever is kept here, so that any number of workers
loads them: on the same partition the codes come back as they were, on another they are rounded anew.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from scaletrain.config import TrainSection

BLOCK = 256  # elements that share a scale; bitsandbytes' kernels know no other
_AT_ONCE = 2**16 * BLOCK  # elements that are quantised at a time: 64 MB of fp32
_PLACES = {"exp_avg": "1", "exp_avg_sq": "2"}  # bitsandbytes numbers the moments


def build(groups: list[dict[str, Any]], train: TrainSection) -> torch.optim.Optimizer:
    """The optimizer; groups of matrices get moments of 8 bits, groups of vectors of 32."""
    from bitsandbytes.optim import AdamW8bit

    optimizer: Any = AdamW8bit(groups, lr=train.learning_rate, betas=train.betas, eps=train.eps)
    # The signed code ends at -0.993 and at 1: with -1 a block's largest element is always the scale itself, so that
    # codes made fp32 and quantised again are the same codes.
    optimizer.name2qmap["dynamic"][0] = -1.0
    for group in optimizer.param_groups:
        group["moment_bits"] = 8 if all(parameter.ndim >= 2 for parameter in group["params"]) else 32
    return optimizer  # type: ignore[no-any-return]


def new_state(optimizer: Any, master: torch.Tensor) -> dict[str, Any]:
    """A master's state before its first update, as bitsandbytes keeps it."""
    bits = next(group["moment_bits"] for group in optimizer.param_groups if _is_in(master, group["params"]))
    state: dict[str, Any] = {"step": 0}
    for number, code in (("1", "dynamic"), ("2", "udynamic")):
        kind = torch.uint8 if bits == 8 else torch.float32
        state[f"state{number}"] = torch.zeros_like(master.data, dtype=kind)
        if bits == 8:
            optimizer.name2qmap[code] = optimizer.name2qmap[code].to(master.device)
            state[f"qmap{number}"] = optimizer.name2qmap[code]
            blocks = -(-master.numel() // BLOCK)
            state[f"absmax{number}"] = torch.zeros(blocks, dtype=torch.float32, device=master.device)
    return state


def is_kept(state: dict[str, Any]) -> bool:
    """Whether a master's state is of this kind."""
    return "state1" in state


def moment(state: dict[str, Any], name: str, start: int, length: int) -> torch.Tensor:
    """A range of a moment, flat and fp32: a view where it is kept so, else its codes made fp32."""
    number = _PLACES[name]
    kept: torch.Tensor = state[f"state{number}"].view(-1)
    if name in state:  # while a checkpoint is loaded
        kept = state[name]
    if kept.dtype == torch.float32:
        return kept.narrow(0, start, length)
    from bitsandbytes.functional import dequantize_blockwise

    first, end = start // BLOCK, -(-(start + length) // BLOCK)
    scales, code = state[f"absmax{number}"][first:end], state[f"qmap{number}"]
    codes = kept[first * BLOCK : end * BLOCK]
    values: torch.Tensor = dequantize_blockwise(codes, absmax=scales, code=code, blocksize=BLOCK)
    return values.narrow(0, start - first * BLOCK, length)


@contextmanager
def writable(states: list[dict[str, Any]]) -> Iterator[None]:
    """Meanwhile `moment` gives views to write to, in host memory; in the end what they hold is quantised."""
    packed = [state for state in states if is_kept(state) and state["state1"].dtype == torch.uint8]
    for state in packed:
        state |= {name: torch.zeros(state["state1"].numel()) for name in _PLACES}
    try:
        yield
        for state in packed:
            for name in _PLACES:
                _quantise(state, name)
    finally:
        for state in packed:
            for name in _PLACES:
                del state[name]


def moment_bytes(state: dict[str, Any]) -> int:
    """What a master's moments take; the code, which all of them share, is not counted."""
    names = (f"{part}{number}" for part in ("state", "absmax") for number in "12")
    return sum(state[name].nbytes for name in names if name in state)


def _quantise(state: dict[str, Any], name: str) -> None:
    """Keep a moment as its nearest codes: bitsandbytes' own kernel for CPUs may take the one beside it."""
    number, values = _PLACES[name], state[name]
    kept, scales, code = state[f"state{number}"].view(-1), state[f"absmax{number}"], state[f"qmap{number}"]
    between = (code[1:] + code[:-1]) / 2
    for start in range(0, len(values), _AT_ONCE):
        chunk = values[start : start + _AT_ONCE].to(kept.device)
        blocks = torch.nn.functional.pad(chunk, (0, -len(chunk) % BLOCK)).view(-1, BLOCK)
        largest = blocks.abs().amax(dim=1)
        scales[start // BLOCK : start // BLOCK + len(largest)] = largest
        parts = blocks / largest.where(largest > 0, 1)[:, None]
        codes = torch.bucketize(parts, between, out_int32=True).view(-1)[: len(chunk)]
        kept[start : start + len(chunk)] = codes.to(torch.uint8)


def _is_in(master: torch.Tensor, parameters: list[torch.Tensor]) -> bool:
    return any(master is each for each in parameters)

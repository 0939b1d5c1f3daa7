"""eight_bit: moments of a byte each, that survive a checkpoint to the bit and learn as those of fp32 do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Checkpoint
from scaletrain.config import TrainSection
from scaletrain.layout import RunLayout
from scaletrain.train import eight_bit
from workers import Prepared, train

KINDS = ("exp_avg", "exp_avg_sq", "fp32")
EIGHT = {"train__optimizer": "adamw_8bit", "train__steps": 10, "checkpoint__every_steps": 5}


def opened(prepared: Prepared, name: str, step: int) -> Checkpoint:
    return checkpoint.open_checkpoint(RunLayout(prepared.root, name).checkpoint(step))


def losses(metrics: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in metrics]


def stepped(numel: int = 40 * eight_bit.BLOCK + 7, *, device: str = "cpu") -> tuple[Any, torch.nn.Parameter]:
    """An optimizer of one matrix after three updates with gradients of all sizes, and with a block of zeros."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(1, numel, generator=generator).to(device))
    optimizer: Any = eight_bit.build([{"params": [matrix], "weight_decay": 0.1}], TrainSection(steps=1))
    optimizer.state[matrix] = eight_bit.new_state(optimizer, matrix)
    for _ in range(3):
        scale = 10.0 ** torch.randint(-6, 2, (1, numel), generator=generator)
        gradient = scale * torch.randn(1, numel, generator=generator)
        gradient[:, eight_bit.BLOCK : 2 * eight_bit.BLOCK] = 0
        matrix.grad = gradient.to(device)
        optimizer.step()
    return optimizer, matrix


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no CUDA GPU"),
            ],
        ),
    ],
)
def test_codes_made_fp32_and_quantised_again_are_the_same_codes(device: str) -> None:
    """Also in blocks whose largest element is negative, in one of zeros, and in the last one, which is not whole."""
    optimizer, matrix = stepped(device=device)
    state = optimizer.state[matrix]
    names = ("exp_avg", "exp_avg_sq")
    scales = [state[name].clone() for name in ("absmax1", "absmax2")]
    values = [eight_bit.moment(state, name, 0, matrix.numel()).clone() for name in names]
    blocks = values[0][: -7 - eight_bit.BLOCK].view(-1, eight_bit.BLOCK)
    assert (blocks.amax(1) < -blocks.amin(1)).any()
    with eight_bit.writable([state]):
        for name, each in zip(names, values, strict=True):
            eight_bit.moment(state, name, 0, matrix.numel()).copy_(each)
    assert all(torch.equal(state[f"absmax{number}"], each) for number, each in zip("12", scales, strict=True))
    for name, each in zip(names, values, strict=True):
        assert torch.equal(eight_bit.moment(state, name, 0, matrix.numel()), each)
    assert "exp_avg" not in state


def test_any_range_of_a_moment_is_that_part_of_the_whole() -> None:
    """Ranges begin and end anywhere in a block, as parameters do in a partition."""
    optimizer, matrix = stepped()
    state = optimizer.state[matrix]
    whole = eight_bit.moment(state, "exp_avg", 0, matrix.numel())
    for start, length in ((0, 1), (255, 2), (256, 256), (300, 475), (770, 5)):
        assert torch.equal(eight_bit.moment(state, "exp_avg", start, length), whole[start : start + length])


def test_moments_take_a_quarter_and_vectors_keep_theirs() -> None:
    """A byte and 4 / 256 of one for each moment of a matrix; vectors have fp32."""
    optimizer, matrix = stepped(4 * eight_bit.BLOCK)
    assert eight_bit.moment_bytes(optimizer.state[matrix]) == 2 * (4 * eight_bit.BLOCK + 4 * 4)
    vector = torch.nn.Parameter(torch.ones(1000))
    of_vectors: Any = eight_bit.build([{"params": [vector]}], TrainSection(steps=1))
    state = eight_bit.new_state(of_vectors, vector)
    assert {state["state1"].dtype, state["state2"].dtype} == {torch.float32}
    assert eight_bit.moment(state, "exp_avg", 10, 5).shape == (5,)


@pytest.fixture(scope="module")
def undisturbed(prepared: Prepared) -> list[float]:
    """The losses of ten steps by two workers with ZeRO-2, saved at step 5 too."""
    return losses(train(prepared, "eight", workers=2, zero__stage=2, **EIGHT))


def gone_on(prepared: Prepared, name: str, **settings: Any) -> list[float]:
    """The losses of steps 6 to 10 of a run that begins with the other's commit of step 5."""
    old, new = RunLayout(prepared.root, "eight").checkpoint(5), RunLayout(prepared.root, name).checkpoint(5)
    for info in storage.list_objects(old):
        storage.write_bytes(storage.join(new, info.url.rsplit("/", 1)[-1]), storage.read_bytes(info.url))
    return losses(train(prepared, name, **(EIGHT | settings)))


def test_it_learns_as_moments_of_fp32_do(prepared: Prepared, undisturbed: list[float]) -> None:
    """Ten steps: near the losses of AdamW, and not the same."""
    expected = losses(train(prepared, "eight-fp32", workers=1, zero__stage=2, **EIGHT | {"train__optimizer": "adamw"}))
    assert undisturbed != expected
    assert undisturbed == pytest.approx(expected, abs=0.02)
    assert undisturbed[-1] < undisturbed[0]


def test_a_resumed_run_is_bit_for_bit_the_undisturbed_one(prepared: Prepared, undisturbed: list[float]) -> None:
    """Gone on from step 5 on the same number of workers: the same losses, weights and moments."""
    assert gone_on(prepared, "eight-resumed", workers=2, zero__stage=2) == undisturbed[5:]
    mine, theirs = opened(prepared, "eight-resumed", 10), opened(prepared, "eight", 10)
    assert mine.kinds == KINDS
    for kind in KINDS:
        for name in theirs.names():
            np.testing.assert_array_equal(mine.read(kind, name), theirs.read(kind, name))


@pytest.mark.parametrize("stage", [1, pytest.param(0, marks=pytest.mark.long)])
def test_it_goes_on_at_another_number_and_stage(prepared: Prepared, undisturbed: list[float], stage: int) -> None:
    """Blocks begin elsewhere there, so that moments are rounded anew: a loss moves by less than 2e-3."""
    found = gone_on(prepared, f"eight-{stage}", workers=1, zero__stage=stage)
    assert found == pytest.approx(undisturbed[5:], abs=2e-3)

"""plan: what workers that share rows need, and how long they take."""

from dataclasses import replace

import pytest
from shapes import llama

from scaletrain.plan import choices
from scaletrain.plan.compute import exchanged_bytes, forecast_step
from scaletrain.plan.machines import of_type
from scaletrain.plan.memory import Way, forecast_memory

SHAPE_1B = llama(128256, 2048, 8192, 16, 32, 8, 64)
ALONE = Way(stage=2, num_workers=8, micro_batch_size=1, seq_len=32768)
SHARED = replace(ALONE, sequence_parallel=4)


def test_activations_are_divided_and_states_are_not() -> None:
    """What grows with the row's length goes down to a quarter; ZeRO partitions over all workers as before."""
    alone, shared = (forecast_memory(SHAPE_1B, way).device for way in (ALONE, SHARED))
    assert shared["activations"].high == pytest.approx(alone["activations"].high / 4, rel=1e-6)
    for name in ("parameters", "gradients", "optimizer", "buffers"):
        assert shared[name] == alone[name]


def test_a_row_is_dealt_to_a_group() -> None:
    """Two groups of four make eight rows in four rounds; the same tokens each, and an exchange on top."""
    assert choices.micro_batches(8, num_workers=SHARED.readers)[0] == 4
    machines = of_type("p5.48xlarge")
    alone, shared = (forecast_step(SHAPE_1B, way, machines, global_batch_size=8, flops=1e16) for way in (ALONE, SHARED))
    assert alone is not None and shared is not None
    assert shared.computing_s == alone.computing_s
    assert shared.sending_s.low > alone.sending_s.low


def test_what_is_exchanged_is_heads_of_the_other_workers() -> None:
    """16 layers, queries and result of 2,048, keys and values of 512, bf16, forth and back, to three of four."""
    assert exchanged_bytes(SHAPE_1B, ALONE, rounds=1) == 0
    assert exchanged_bytes(SHAPE_1B, SHARED, rounds=1) == 0.75 * 2 * 16 * 2 * 8192 * 5120

"""plan against published figures: of states in papers and tools, and of whole peaks that were measured on a GPU."""

import pytest
from shapes import LLAMA_70B, llama, one_matrix

from scaletrain.model.shape import ModelShape, in_linear_layer, shape_of
from scaletrain.plan.memory import GB, Way, forecast_memory
from scaletrain.plan.states import frozen_bytes, states_of

# Half-precision gradients and weights, as papers reckon them; ours are added up in fp32, which is 2 bytes more.
_OURS_MORE_BYTES = 2


@pytest.mark.parametrize(("stage", "published_gb"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_states_of_the_zero_paper(stage: int, published_gb: float) -> None:
    """7.5 billion parameters on 64 GPUs (Rajbhandari et al. 2020, arXiv:1910.02054, figure 1), to its last digit.

    The paper keeps gradients in fp16 (2 bytes), we in fp32, partitioned from stage 2 on; and ours at stage 0 keeps fp32
    weights alone, which is as many bytes.
    """
    numel, workers = 7_500_000_000, 64
    found = states_of(one_matrix(numel), (), stage=stage, num_workers=workers, precision="bf16")
    more = {0: 0, 1: 4 * numel, 2: _OURS_MORE_BYTES * numel / workers, 3: _OURS_MORE_BYTES * numel / workers}[stage]
    assert (found.on_device - more) / GB == pytest.approx(published_gb, abs=0.06)


@pytest.mark.parametrize("workers", [1, 8, 64])
def test_states_of_deepspeeds_own_estimator(workers: int) -> None:
    """DeepSpeed's estimators (deepspeed.readthedocs.io, Memory Requirements) for t5-3b's 2,851 million parameters.

    They count gradients twice, in 16 and in 32 bits; what is kept between micro batches is the fp32 one alone.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    numel, largest = 2_851_000_000, 32_000_000
    setup = {"num_gpus_per_node": workers, "num_nodes": 1, "cpu_offload": False}
    _, published_2 = estimate_zero2_model_states_mem_needs(numel, **setup)
    _, published_3, live = estimate_zero3_model_states_mem_needs(numel, largest, cpu_offload_params=False, **setup)
    ours_2 = states_of(one_matrix(numel), (), stage=2, num_workers=workers, precision="bf16").on_device
    ours_3 = states_of(one_matrix(numel), (), stage=3, num_workers=workers, precision="bf16").on_device
    assert ours_2 + 2 * numel / workers == pytest.approx(published_2, rel=1e-6)
    assert ours_3 == pytest.approx(published_3 - live, rel=1e-6)


def test_states_of_the_65b_model_in_the_qlora_paper() -> None:
    """Over 780 GB for 16-bit fine-tuning of LLaMA 65B (Dettmers et al. 2023, arXiv:2305.14314, section 1).

    12 bytes a parameter: weights and gradients in 16 bits, two moments in fp32; ours are a master weight and two bytes
    of gradient more. The model's own configuration gives 65.3 billion.
    """
    shape = shape_of({**LLAMA_70B, "vocab_size": 32000, "intermediate_size": 22016, "num_key_value_heads": 64})
    found = states_of(shape.parameters, (), stage=2, num_workers=1, precision="bf16").on_device
    assert shape.numel == pytest.approx(65.3e9, rel=0.001)
    assert (found - (4 + _OURS_MORE_BYTES) * shape.numel) / GB == pytest.approx(780, rel=0.01)


def test_double_quantization_costs_what_the_qlora_paper_says() -> None:
    """0.127 bits a parameter beside the 4 (arXiv:2305.14314, section 3), of the 65B model's linear layers."""
    shape = shape_of({**LLAMA_70B, "vocab_size": 32000, "intermediate_size": 22016, "num_key_value_heads": 64})
    linear = [each for each in shape.parameters if in_linear_layer(each)]
    numel = sum(each.numel for each in linear)
    assert numel > 0.99 * shape.numel
    assert 8 * frozen_bytes(linear, weight=2, quantized=True) / numel == pytest.approx(4.127, abs=0.001)


@pytest.mark.parametrize(
    ("shape", "rows", "measured_gb"),
    [
        (llama(128256, 2048, 8192, 16, 32, 8, 64), 16, 65.3),
        (llama(49152, 576, 1536, 30, 9, 3, 64), 16, 19.5),
        (llama(128256, 3072, 8192, 28, 24, 8, 128), 2, 71.3),
    ],
    ids=["1B", "0.135B", "3B"],
)
def test_the_whole_peak_is_near_what_was_measured_on_a_gpu(shape: ModelShape, rows: int, measured_gb: float) -> None:
    """Within 10%, and between the bounds: ZeRO-2, one H100, rows of 2,048 tokens (benchmarks/results/step.md)."""
    way = Way(stage=2, num_workers=1, micro_batch_size=rows, seq_len=2048)
    found = forecast_memory(shape, way).allocated
    assert found.low <= measured_gb * GB <= found.high
    assert found.middle / GB == pytest.approx(measured_gb, rel=0.1)

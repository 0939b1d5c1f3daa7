"""Memory of one worker by part: exact where shapes decide it, between two bounds where kernels and data do.

Activations follow from what a decoder layer keeps for its backward pass: with compiled layers and flash attention the
inputs of its matrix products, the residuals, and attention's queries, keys, values and output; kernels that are not
fused keep more. On an H100 this came within 2% of the measured peak of three shapes (benchmarks/results/step.md, held
by a test).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from scaletrain.config_model import LoraSection, quantizes
from scaletrain.config_recomputing import Recomputing
from scaletrain.model.recomputing import layers_recomputed
from scaletrain.model.shape import ModelShape, count, in_linear_layer, split_trained
from scaletrain.plan.states import (
    MASTER_AND_MOMENTS_BYTES,
    Optimizer,
    States,
    persistent_elements,
    states_of,
    weight_bytes,
)

GB = 1_000_000_000
_BUCKET_ELEMENTS = 500_000_000  # gradients that are reduced at once, in fp32 (train/zero.py)
_LIVE_ELEMENTS = 1_000_000_000  # weights that ZeRO 3 gathers ahead at most: stage3_max_live_parameters
_CUDA_CHUNK_BYTES = 2**29  # logits that exist at once (model/loss.py)
_CPU_CHUNK_BYTES = 2**27
_CONTEXT_BYTES = (400_000_000, 1_200_000_000)  # the driver's context, cuBLAS and NCCL; nvidia-smi before the first step
_PROCESS_BYTES = {  # a worker with torch, DeepSpeed and Ray imported, resident; CUDA's libraries come on top
    "cpu": (700_000_000, 1_500_000_000),
    "cuda": (2_000_000_000, 5_000_000_000),
}
_FRAGMENTS = 0.06  # of what comes and goes, at most: the caching allocator's blocks that fit nothing


@dataclass(frozen=True)
class Amount:
    """Bytes, between two bounds; both are the same where it is exact."""

    low: int
    high: int

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.low + other.low, self.high + other.high)

    @property
    def middle(self) -> float:
        """The amount to expect."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Way:
    """One way to train the same model: what memory and speed depend on, and the mathematics (but for LoRA) does not."""

    stage: Literal[0, 1, 2, 3]
    num_workers: int
    micro_batch_size: int
    seq_len: int
    device: Literal["cuda", "cpu"] = "cuda"
    precision: Literal["fp32", "bf16"] = "bf16"
    offload_optimizer: bool = False
    offload_parameters: bool = False
    gradient_checkpointing: Recomputing = False
    lora: LoraSection | None = None
    sequence_parallel: int = 1
    optimizer: Optimizer = "adamw"

    @property
    def tokens(self) -> int:
        """Tokens of a micro batch that one worker has, padding included."""
        return self.micro_batch_size * self.seq_len // self.sequence_parallel

    @property
    def readers(self) -> int:
        """Among how many the rows are dealt: workers that share theirs are one."""
        return max(1, self.num_workers // self.sequence_parallel)


@dataclass(frozen=True)
class Memory:
    """What one worker needs: by part on its device, by part in host memory; and the size of a checkpoint of all."""

    device: dict[str, Amount]
    host: dict[str, Amount]
    states: States
    checkpoint_bytes: int

    @property
    def on_device(self) -> Amount:
        """Everything on the device."""
        return _sum(self.device)

    @property
    def on_host(self) -> Amount:
        """Everything in host memory."""
        return _sum(self.host)

    @property
    def allocated(self) -> Amount:
        """What torch allocates on the device at its peak: what `memory_bytes` in a run's metrics measures."""
        return _sum({name: part for name, part in self.device.items() if name not in ("fragmentation", "context")})


def forecast_memory(shape: ModelShape, way: Way, *, supervised_share: float | None = None) -> Memory:
    """Forecast one worker's peak; `supervised_share` of the tokens, where it is known, bounds the loss."""
    states = _states(shape, replace(way, micro_batch_size=1, seq_len=1, gradient_checkpointing=False))
    activations = _activations(shape, way)
    loss = _loss(shape, way, supervised_share)
    buffers = _buffers(shape, way)
    checkpoint = MASTER_AND_MOMENTS_BYTES * count(shape, way.lora).trained
    parts = {
        "parameters": _exactly(states.parameters),
        "gradients": _exactly(states.gradients),
        "optimizer": _exactly(states.optimizer),
        "activations": activations,
        "logits and loss": loss,
        "buffers": buffers,
    }
    host = {
        "worker process": Amount(*_PROCESS_BYTES[way.device]),
        "checkpoint image": _exactly(checkpoint // way.num_workers),
    }
    if way.optimizer == "adamw_8bit":  # moments are fp32 while they are loaded
        host["loading a checkpoint"] = Amount(0, checkpoint * 8 // MASTER_AND_MOMENTS_BYTES // way.num_workers)
    if states.on_host:
        # Pinned memory is given out in powers of two (torch's CachingHostAllocator).
        host["offloaded states"] = Amount(states.on_host, (2 if way.device == "cuda" else 1) * states.on_host)
    if way.device == "cpu":  # there the device's memory is the host's
        return Memory({}, {**host, **parts}, states, checkpoint)
    comes_and_goes = activations.high + loss.high + buffers.high
    parts["fragmentation"] = Amount(0, int(_FRAGMENTS * comes_and_goes))
    parts["context"] = Amount(*_CONTEXT_BYTES)
    return Memory(parts, host, states, checkpoint)


@lru_cache(maxsize=256)
def _states(shape: ModelShape, way: Way) -> States:
    trained, frozen = split_trained(shape, way.lora)
    return states_of(
        trained,
        frozen,
        stage=way.stage,
        num_workers=way.num_workers,
        precision=way.precision,
        offload_optimizer=way.offload_optimizer,
        offload_parameters=way.offload_parameters,
        optimizer=way.optimizer,
        quantized=quantizes(way.lora),
    )


def _activations(shape: ModelShape, way: Way) -> Amount:
    """What the backward pass needs of the forward pass, by the elements of a token in a layer."""
    element = 2 if way.precision == "bf16" else 4
    inputs = 4 * shape.hidden_size + 2 * shape.attention_size + 2 * shape.kv_size
    wide = (3 if shape.gated else 2) * shape.mlp_size
    fused = inputs + wide
    # Norms in fp32 and their outputs before the scale, the activation beside its product, keys and values repeated.
    separate = fused + 6 * shape.hidden_size + shape.mlp_size + 2 * (shape.attention_size - shape.kv_size)
    compiled = way.device == "cuda" and way.stage < 3
    low, high = (0.93 * fused, 1.05 * fused) if compiled else (0.9 * fused, 1.15 * separate)
    ends = 4 * shape.hidden_size
    low, high = _of_all_layers(shape, way, low, high)
    if way.lora is not None:  # each adapted matrix keeps its narrow product; a frozen one need not keep its input
        low, high = 0.6 * low, 1.1 * high
    scores = 0.0
    if way.device == "cpu":  # torch's attention with a mask may keep the scores and the weights
        heads_share = way.tokens * way.seq_len * element * 2 * (shape.attention_size // 64)
        scores = heads_share * _layers_at_once(shape, way)
    return Amount(
        int(element * way.tokens * (low + ends)),
        int(element * way.tokens * (high + ends) + scores),
    )


def _of_all_layers(shape: ModelShape, way: Way, low: float, high: float) -> tuple[float, float]:
    """Elements of a token that all layers keep, where one that recomputes nothing keeps between `low` and `high`."""
    if way.gradient_checkpointing == "selective":
        # A layer's input, and what its products and attention give; a product of the way out need not be kept.
        products = 2 * shape.attention_size + 2 * shape.kv_size + (2 if shape.gated else 1) * shape.mlp_size
        least, most = products + 2 * shape.hidden_size, products + 3 * shape.hidden_size
        if way.lora is not None:
            most += products + 2 * shape.hidden_size  # the adapters' products are kept beside the layer's
        return 0.93 * shape.num_layers * least + low, 1.05 * shape.num_layers * most + high
    inputs = layers_recomputed(way.gradient_checkpointing, shape.num_layers) * shape.hidden_size
    whole = _layers_at_once(shape, way)
    return inputs + whole * low, inputs + whole * high


def _layers_at_once(shape: ModelShape, way: Way) -> int:
    """The layers whose activations are all there when memory is fullest: those that are kept, or one recomputed."""
    if way.gradient_checkpointing == "selective":
        return 1
    return max(1, shape.num_layers - layers_recomputed(way.gradient_checkpointing, shape.num_layers))


def _loss(shape: ModelShape, way: Way, supervised_share: float | None) -> Amount:
    """Logits, a chunk at a time or all, the gradients of supervised hidden states, and that of the output layer."""
    element = 2 if way.precision == "bf16" else 4
    few, many = (0.2, 1.0) if supervised_share is None else (supervised_share, supervised_share)
    hidden = element * shape.hidden_size * way.tokens
    logits = element * shape.vocab_size * way.tokens
    at_once = _CUDA_CHUNK_BYTES if way.device == "cuda" else _CPU_CHUNK_BYTES
    # The output layer's gradient, in the weights' type; in fp32 too for as long as it is added up.
    head = 0 if way.lora is not None else shape.vocab_size * shape.hidden_size
    # Compiled, softmax makes no copies of a chunk; else its logarithm, its exponential, targets and their difference.
    fp32_copies = 1 if way.device == "cuda" else 5.25
    low, high = int(few * hidden) + element * head, int(many * hidden) + (4 + element) * head
    if shape.whole_logits:  # what was made of them; and what it was made of, with its gradient
        low, high = low + int(few * logits), high + int(3 * many * logits)
    return Amount(low, high + int(fp32_copies * min(at_once, many * logits)))


def _buffers(shape: ModelShape, way: Way) -> Amount:
    """DeepSpeed's bucket of gradients, and what ZeRO 3 has gathered of weights."""
    weight = weight_bytes(precision=way.precision, stage=way.stage)
    totals = count(shape, way.lora)
    bucket = 4 * min(_BUCKET_ELEMENTS, totals.trained)
    packed = [each.numel for each in shape.parameters if quantizes(way.lora) and in_linear_layer(each)]
    if packed:
        return _with_whole_matrix(way, bucket, shape.numel - sum(packed), max(packed))
    if way.stage == 0:
        casts = 2 * shape.numel if way.precision == "bf16" else 0  # autocast keeps its bf16 copies for the pass
        return Amount(casts, casts + (bucket if way.num_workers > 1 else 0))
    if way.stage == 1 and weight == 2 and not way.offload_optimizer:
        return Amount(0, bucket if way.num_workers > 1 else 0)  # the gradients are reduced where they are
    if way.stage < 3:
        staging = weight * totals.largest if way.offload_optimizer else 0
        return Amount(bucket + staging, bucket + staging + weight * totals.largest)
    small = weight * _small(shape, way.lora)
    one_layer = weight * (totals.in_layers // max(1, shape.num_layers))
    gathered = weight * min(_LIVE_ELEMENTS, shape.numel)
    needed = min(gathered, max(one_layer, weight * totals.largest))
    return Amount(bucket + small + needed, bucket + small + gathered + 4 * totals.largest)


def _with_whole_matrix(way: Way, bucket: int, never_packed: int, largest: int) -> Amount:
    """With weights in 4 bits: the one matrix that is whole for a product, its scales in fp32 before, and the buckets.

    What is trained is small; `never_packed` are the elements that autocast copies, `largest` those of the matrix.
    """
    element = 2 if way.precision == "bf16" else 4
    casts = 2 * never_packed if way.stage == 0 and way.precision == "bf16" else 0
    whole = element * largest
    return Amount(whole + casts, whole + casts + 4 * -(-largest // 64) + 2 * bucket)


@lru_cache(maxsize=16)
def _small(shape: ModelShape, lora: LoraSection | None) -> int:
    trained, frozen = split_trained(shape, lora)
    return persistent_elements((*trained, *frozen))


def _exactly(size_bytes: int) -> Amount:
    return Amount(size_bytes, size_bytes)


def _sum(parts: dict[str, Amount]) -> Amount:
    total = Amount(0, 0)
    for part in parts.values():
        total += part
    return total

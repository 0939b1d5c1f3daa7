"""How long a step takes, between two bounds: the FLOPs it needs at an assumed share of the peak, and what is sent.

The shares are those that were measured on one H100 (benchmarks/results/step.md: 0.17 for 0.135 billion parameters,
0.46 for 1.24, 0.36 for 3.2 at small micro batches; docs/plan.md: 0.51 for 1.0) and on CPU cores
(benchmarks/results/quickstart.md), with room on both sides. Nothing is assumed to overlap: DeepSpeed is run without
overlap_comm.
"""

from dataclasses import dataclass

from scaletrain.config_model import quantizes
from scaletrain.devices import peak_flops_of
from scaletrain.model.recomputing import layers_recomputed
from scaletrain.model.shape import ModelShape, count
from scaletrain.plan.machines import Machines
from scaletrain.plan.memory import Way
from scaletrain.plan.states import GRADIENT_BYTES, weight_bytes

_SMALL_PARAMETERS = 500_000_000
_MFU_SMALL = (0.10, 0.22)  # launching kernels is most of the work
_MFU = (0.33, 0.52)
_MFU_UNMEASURED = 0.7  # of the lower bound, on GPUs other than those it was measured on
_MEASURED_GPUS = ("H100",)
_CPU_FLOPS = (20e9, 80e9)  # a core in fp32, 105 to 140 tokens/s of SmolLM2-135M on two
_NETWORK_SHARE = (0.4, 0.85)  # of the line's rate, that collectives reach between machines
_INSIDE_BYTES_PER_S = {  # between the GPUs of one machine, for a collective: NVLink, else PCIe
    "A100": (100e9, 230e9),
    "H100": (150e9, 370e9),
    "H200": (150e9, 370e9),
    "B200": (250e9, 600e9),
    "V100": (40e9, 120e9),
}
_PCIE_BYTES_PER_S = (5e9, 20e9)
_MEMORY_BYTES_PER_S = (5e9, 40e9)  # of a host whose cores run AdamW on offloaded states
_SELECTIVE_SHARE = 0.05  # of a step: norms and activations, 11% of it in both directions (docs/performance.md)
_MAKING_WHOLE = (1.02, 1.4)  # of a step with weights in 4 bits, which are made whole for each product: assumed
_ADAMW_TRAFFIC_BYTES = 28  # read and written by an update, for a parameter: master, moments, gradient
_UNKNOWN_NETWORK_BYTES_PER_S = (1e9 / 8, 10e9 / 8)


@dataclass(frozen=True)
class Band:
    """Something between two bounds, in the unit that its name says."""

    low: float
    high: float

    def __add__(self, other: "Band") -> "Band":
        return Band(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Band":
        """Both bounds times a factor."""
        return Band(self.low * factor, self.high * factor)

    @property
    def middle(self) -> float:
        """The value to expect: bounds of a ratio have their middle at the geometric mean."""
        return float((self.low * self.high) ** 0.5)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by part, and the share of the peak that was assumed (None on CPUs)."""

    computing_s: Band
    sending_s: Band
    offload_s: Band
    mfu: Band | None

    @property
    def total_s(self) -> Band:
        """The whole step."""
        return self.computing_s + self.sending_s + self.offload_s


def step_flops(
    shape: ModelShape, way: Way, *, rows: int, tokens_per_row: float, supervised_share: float, document_tokens: float
) -> float:
    """FLOPs of a step over `rows` rows, forward and backward (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).

    6 for each weight of the layers and token, of a frozen one 4; the output layer at supervised tokens only; attention
    within documents of `document_tokens`, halved for causality. Recomputing is not needed work, and not in it.
    """
    totals = count(shape, way.lora)
    each_weight = 4 if totals.frozen else 6
    adapters = totals.trained if totals.frozen else 0
    layers = each_weight * totals.in_layers + 6 * adapters
    head = each_weight * shape.vocab_size * shape.hidden_size * supervised_share
    attention = 6 * shape.num_layers * shape.attention_size * document_tokens
    return float(rows * tokens_per_row * (layers + head + attention))


def forecast_step(
    shape: ModelShape, way: Way, machines: Machines, *, global_batch_size: int, flops: float
) -> StepTime | None:
    """Seconds of one step of `flops`; None where nothing is known of the device's speed."""
    rounds = -(-global_batch_size // (way.micro_batch_size * way.readers))
    dealt = rounds * way.micro_batch_size * way.readers / global_batch_size  # an uneven deal waits for the longest
    mfu = None
    if way.device == "cpu":
        cores = max(1.0, machines.vcpus / machines.workers_here(way.num_workers))
        speed = Band(*_CPU_FLOPS).times(cores * way.num_workers)
    else:
        peak = peak_flops_of(machines.gpu) if machines.gpu else None
        if peak is None:
            return None
        mfu = mfu_band(shape, machines.gpu)
        speed = mfu.times(peak * way.num_workers)
    computing = Band(flops, flops).times(dealt * recomputing_factor(shape, way))
    computing = Band(computing.low / speed.high, computing.high / speed.low)
    if quantizes(way.lora):
        computing = Band(computing.low * _MAKING_WHOLE[0], computing.high * _MAKING_WHOLE[1])
    return StepTime(computing, _sending(shape, way, machines, rounds), _offload(shape, way, rounds), mfu)


def recomputing_factor(shape: ModelShape, way: Way) -> float:
    """How many times the computing of a step that recomputes nothing a step takes: twice the forward pass at most."""
    if way.gradient_checkpointing == "selective":
        return 1 + _SELECTIVE_SHARE
    forward = 1 / 2 if count(shape, way.lora).frozen else 1 / 3  # nothing is computed for a frozen weight's gradient
    return 1 + forward * layers_recomputed(way.gradient_checkpointing, shape.num_layers) / shape.num_layers


def mfu_band(shape: ModelShape, gpu: str | None) -> Band:
    """The share of the peak to expect."""
    low, high = _MFU_SMALL if shape.numel < _SMALL_PARAMETERS else _MFU
    return Band(low if gpu in _MEASURED_GPUS else _MFU_UNMEASURED * low, high)


def sent_bytes(shape: ModelShape, way: Way, rounds: int) -> float:
    """What a worker sends in a step: gradients in fp32, at each micro batch from ZeRO 2 on, and weights."""
    totals = count(shape, way.lora)
    gradients = GRADIENT_BYTES * totals.trained
    weight = weight_bytes(precision=way.precision, stage=way.stage)
    own = weight * totals.trained
    share = (way.num_workers - 1) / way.num_workers
    if way.stage <= 1:
        gathered = own if way.stage else 0
        return share * (2 * gradients + gathered)
    if way.stage == 2:
        return share * (2 * gradients * rounds + own)
    whole = own + weight * totals.frozen
    return share * rounds * (2 * whole + gradients)  # weights for the forward and again for the backward pass


def exchanged_bytes(shape: ModelShape, way: Way, rounds: int) -> float:
    """What a worker that shares rows sends in a step: queries, keys, values and what attention makes of them.

    All of them forward, and their gradients back; once more forward where activations are recomputed.
    """
    element = 2 if way.precision == "bf16" else 4
    passes = 3 if way.gradient_checkpointing else 2
    share = (way.sequence_parallel - 1) / way.sequence_parallel
    width = 2 * shape.attention_size + 2 * shape.kv_size
    return share * rounds * passes * shape.num_layers * element * way.tokens * width


def _sending(shape: ModelShape, way: Way, machines: Machines, rounds: int) -> Band:
    if way.num_workers == 1:
        return Band(0.0, 0.0)
    sent = sent_bytes(shape, way, rounds)
    exchanged = exchanged_bytes(shape, way, rounds)
    low, high = _MEMORY_BYTES_PER_S if way.device == "cpu" else _PCIE_BYTES_PER_S
    inside = Band(*_INSIDE_BYTES_PER_S.get(machines.gpu or "", (low, high)))
    seconds = Band(0.0, 0.0)
    together = machines.workers_here(way.num_workers)
    if together > 1:
        seconds += Band((sent + exchanged) / inside.high, (sent + exchanged) / inside.low)
    if together % way.sequence_parallel:  # workers that share rows are on several machines
        sent += exchanged
    if machines.count(way.num_workers) > 1:  # a ring goes in and out of each machine once
        rate = machines.network_bytes_per_s
        between = Band(*_UNKNOWN_NETWORK_BYTES_PER_S) if rate is None else Band(*_NETWORK_SHARE).times(rate)
        seconds += Band(sent / between.high, sent / between.low)
    return seconds


def _offload(shape: ModelShape, way: Way, rounds: int) -> Band:
    """Gradients go to the host at each micro batch, weights come back, and the host's cores make the update."""
    if not way.offload_optimizer and not way.offload_parameters:
        return Band(0.0, 0.0)
    own = count(shape, way.lora).trained / way.num_workers
    weight = weight_bytes(precision=way.precision, stage=way.stage)
    moved = own * (GRADIENT_BYTES * rounds + weight) if way.offload_optimizer else 0.0
    if way.offload_parameters:
        moved += 2 * rounds * weight * shape.numel / way.num_workers
    update = _ADAMW_TRAFFIC_BYTES * own if way.offload_optimizer else 0.0
    return Band(
        moved / _PCIE_BYTES_PER_S[1] + update / _MEMORY_BYTES_PER_S[1],
        moved / _PCIE_BYTES_PER_S[0] + update / _MEMORY_BYTES_PER_S[0],
    )

"""Bytes of model states on one worker: what DeepSpeed keeps of parameters, gradients and optimizer, by ZeRO stage.

Exact, since it follows from the parameters' shapes alone: ZeRO 1 and 2 flatten each parameter group (matrices, vectors)
and pad it to a multiple of twice the workers, ZeRO 3 cuts each parameter into equal parts (Rajbhandari et al. 2020,
arXiv:1910.02054; the forms are those of DeepSpeed 0.19). A test counts the tensors of real engines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from scaletrain.model.shape import Parameter, in_linear_layer

MASTER_AND_MOMENTS_BYTES = 12  # an fp32 master weight and AdamW's two fp32 moments
GRADIENT_BYTES = 4  # gradients are added up in fp32
Optimizer = Literal["adamw", "adamw_8bit"]
_BLOCK_ELEMENTS = 256  # of a moment of 8 bits, that share an fp32 scale (train/eight_bit.py)
_ALIGNMENT = 2
_NF4_BLOCK = 64  # weights of 4 bits that share a scale; a byte each, 256 of them with an fp32 scale of their own
_NF4_SCALES = 256
_NF4_TABLES = 4 * (16 + 256 + 1)  # beside each matrix: what codes stand for, and the scales' mean
_PERSISTENT_ELEMENTS = 100_000  # what ZeRO 3 does not partition: stage3_param_persistence_threshold


@dataclass(frozen=True)
class States:
    """Bytes on one worker; `host_` is what offload puts into its machine's memory instead."""

    parameters: int
    gradients: int
    optimizer: int
    host_parameters: int = 0
    host_gradients: int = 0
    host_optimizer: int = 0

    @property
    def on_device(self) -> int:
        """What the device holds of them for as long as the run lasts."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def on_host(self) -> int:
        """What host memory holds of them."""
        return self.host_parameters + self.host_gradients + self.host_optimizer


def weight_bytes(*, precision: Literal["fp32", "bf16"], stage: int) -> int:
    """Bytes of a weight that the model computes with: ZeRO 0 keeps fp32 also in bf16, and casts as it goes."""
    return 2 if precision == "bf16" and stage > 0 else 4


def frozen_bytes(frozen: Sequence[Parameter], *, weight: int, quantized: bool) -> int:
    """Bytes of weights that are not trained, `weight` each; `quantized`: 4.127 bits each in linear layers.

    That is 4 bits, 8 for 64 of them, and 32 for 64 x 256 (Dettmers et al. 2023, arXiv:2305.14314, section 3), beside
    1,092 bytes of tables for each matrix, as bitsandbytes 0.50 keeps them.
    """
    packed = [each.numel for each in frozen if quantized and in_linear_layer(each)]
    whole = sum(each.numel for each in frozen) - sum(packed)
    return weight * whole + sum(_nf4_bytes(numel) for numel in packed)


def _nf4_bytes(numel: int) -> int:
    blocks = -(-numel // _NF4_BLOCK)
    return -(-numel // 2) + blocks + 4 * -(-blocks // _NF4_SCALES) + _NF4_TABLES


def states_of(
    trained: Sequence[Parameter],
    frozen: Sequence[Parameter],
    *,
    stage: int,
    num_workers: int,
    precision: Literal["fp32", "bf16"],
    offload_optimizer: bool = False,
    offload_parameters: bool = False,
    optimizer: Optimizer = "adamw",
    quantized: bool = False,
) -> States:
    """The states of the worker that holds most, in bytes, after the backward pass of a step.

    `quantized`: frozen linear layers in 4 bits, below ZeRO 3.
    """
    weight = weight_bytes(precision=precision, stage=stage)
    if stage == 3:
        return _partitioned(trained, frozen, weight, num_workers, offload_optimizer, offload_parameters)
    of_frozen = frozen_bytes(frozen, weight=weight, quantized=quantized)
    own = sum(each.numel for each in trained)
    if stage == 0:  # the weights are the masters
        moments = sum(_moments_bytes(each.numel, len(each.shape) >= 2, optimizer) for each in trained)
        return States(weight * own + of_frozen, GRADIENT_BYTES * own, moments)
    groups = [list(group) for group in _groups(trained)]
    padded = [_padded(sum(each.numel for each in group), num_workers) for group in groups]
    whole, share = sum(padded), sum(padded) // num_workers
    parameters, masters_and_moments = weight * whole + of_frozen, 4 * share
    for group, numel in zip(groups, padded, strict=True):
        masters_and_moments += _moments_bytes(numel // num_workers, len(group[0].shape) >= 2, optimizer)
    if offload_optimizer:
        # In host memory: gradients in fp32, and the new weights on their way back to the device.
        kept = weight * whole if stage == 1 else 0
        return States(parameters, kept, 0, weight * share, GRADIENT_BYTES * share, masters_and_moments)
    if stage == 1:
        # The whole gradients, in the weights' type too where that is another one.
        gradients = GRADIENT_BYTES * whole + weight * own if weight != GRADIENT_BYTES else GRADIENT_BYTES * own
    elif weight != GRADIENT_BYTES:
        gradients = GRADIENT_BYTES * share
    else:
        # In one type throughout, DeepSpeed keeps each parameter's gradient whole, also where a partition ends in it.
        gradients = GRADIENT_BYTES * max(_touched(groups, padded, rank, num_workers) for rank in range(num_workers))
    return States(parameters, gradients, masters_and_moments)


def _moments_bytes(numel: int, is_matrix: bool, optimizer: Optimizer) -> int:
    """AdamW's two moments of so many elements; vectors keep moments of fp32 whatever the optimizer."""
    if optimizer == "adamw_8bit" and is_matrix:
        return 2 * (numel + 4 * -(-numel // _BLOCK_ELEMENTS))
    return (MASTER_AND_MOMENTS_BYTES - 4) * numel


def _partitioned(
    trained: Sequence[Parameter],
    frozen: Sequence[Parameter],
    weight: int,
    num_workers: int,
    offload_optimizer: bool,
    offload_parameters: bool,
) -> States:
    share = sum(-(-each.numel // num_workers) for each in trained)
    frozen_share = sum(-(-each.numel // num_workers) for each in frozen)
    parameters, gradients = weight * (share + frozen_share), GRADIENT_BYTES * share
    optimizer = MASTER_AND_MOMENTS_BYTES * share
    host_parameters = parameters if offload_parameters else 0
    if offload_optimizer:
        # The gradients twice: as they are added up, and as the optimizer is given them.
        return States(parameters - host_parameters, 0, 0, host_parameters, 2 * gradients, optimizer)
    return States(parameters - host_parameters, gradients, optimizer, host_parameters)


def persistent_elements(parameters: Sequence[Parameter]) -> int:
    """Elements that ZeRO 3 keeps whole on each worker once it has gathered them: small parameters."""
    return sum(each.numel for each in parameters if each.numel <= _PERSISTENT_ELEMENTS)


def _groups(trained: Sequence[Parameter]) -> Iterator[list[Parameter]]:
    """The optimizer's parameter groups: matrices, and vectors."""
    for found in (
        [each for each in trained if len(each.shape) >= 2],
        [each for each in trained if len(each.shape) < 2],
    ):
        if found:
            yield found


def _padded(numel: int, num_workers: int) -> int:
    multiple = _ALIGNMENT * num_workers
    return -(-numel // multiple) * multiple


def _touched(groups: Sequence[Sequence[Parameter]], padded: Sequence[int], rank: int, num_workers: int) -> int:
    """Elements of the parameters that a rank's partitions are in, in whole or in part."""
    found = 0
    for group, numel in zip(groups, padded, strict=True):
        begin, end = rank * numel // num_workers, (rank + 1) * numel // num_workers
        start = 0
        for parameter in group:
            if start < end and start + parameter.numel > begin:
                found += parameter.numel
            start += parameter.numel
    return found

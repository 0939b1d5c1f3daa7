"""The DeepSpeed engine: its configuration, and each rank's own fragment of every parameter, at every ZeRO stage.

DeepSpeed keeps the fp32 master weights and the optimizer's moments in flat partitions whose form depends on the stage
and the number of workers. This module is the only one that knows those forms: `fragments` gives them as writable
views addressed by (parameter, offset, length), and `publish_weights` carries changed masters into the model.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from scaletrain.config import Config, TrainSection
from scaletrain.train import eight_bit
from scaletrain.train.extensions import quiet_stdout

MOMENTS = ("exp_avg", "exp_avg_sq")
MASTER = "fp32"
_MOST_REDUCED_AT_ONCE = 500_000_000


@dataclass(frozen=True)
class Fragment:
    """This rank's part of one trainable parameter.

    `views` has a flat fp32 tensor of `length` elements for the master weight ("fp32") and each moment; writing to
    them changes the optimizer's state (moments of 8 bits: within `writable_moments`). `replicated`: every rank holds
    the whole parameter (ZeRO 0).
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    length: int
    views: dict[str, torch.Tensor]
    replicated: bool = False


def deepspeed_config(config: Config, *, rounds: int, precision: str, workers: int) -> dict[str, Any]:
    """What DeepSpeed is told; `rounds` micro batches are accumulated per step.

    Gradients are accumulated in fp32, and reduced in fp32 unless `zero.communication` says otherwise, so that bf16
    results depend on the number of workers as little as they can (https://www.deepspeed.ai/docs/config-json/). From
    ZeRO 2 on a micro batch's gradients are in bf16: one worker has nobody to add them up with, and needs no copies.
    """
    zero = config.zero
    section: dict[str, Any] = {"stage": zero.stage, "contiguous_gradients": True, "overlap_comm": False}
    if zero.offload_optimizer == "cpu":
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if zero.offload_parameters == "cpu":
        section["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    bf16_weights = precision == "bf16" and zero.stage > 0
    is_alone = bf16_weights and zero.stage >= 2 and workers == 1
    return {
        "train_micro_batch_size_per_gpu": config.train.micro_rows,
        "gradient_accumulation_steps": rounds,
        "gradient_clipping": config.train.max_grad_norm,
        "zero_optimization": section,
        "bf16": {"enabled": bf16_weights},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "bf16" if is_alone else zero.communication,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def build_engine(model: nn.Module, config: Config, *, rounds: int, precision: str) -> Any:
    """Wrap a model in a DeepSpeed engine with AdamW; all ranks must call it, after the process group exists."""
    import deepspeed

    trainable: list[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(parameter_groups(model, config.train.weight_decay), config.train)
    settings = deepspeed_config(config, rounds=rounds, precision=precision, workers=dist.get_world_size())
    # A buffer of this many elements is allocated for each backward pass, used or not.
    numel = sum(parameter.ds_numel if hasattr(parameter, "ds_numel") else parameter.numel() for parameter in trainable)
    settings["zero_optimization"]["reduce_bucket_size"] = min(_MOST_REDUCED_AT_ONCE, numel)
    with quiet_stdout():
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    if config.zero.stage in (1, 2) and config.zero.offload_optimizer == "none":
        # It looks at each gradient by itself for what is not finite; the norm, which comes next, tells as much.
        engine.optimizer.check_overflow = lambda partition_gradients=True: None
    return engine


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters: matrices decay, vectors (norms, biases) do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in trainable if len(_full_shape(p)) >= 2]
    vectors = [p for p in trainable if len(_full_shape(p)) < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def named_trainable(engine: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Names, as the causal language model knows them, and parameters that are trained."""
    for name, parameter in engine.module.causal_lm.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def parameter_shapes(engine: Any) -> dict[str, tuple[int, ...]]:
    """The full shape of every trained parameter, also where it is partitioned."""
    return {name: _full_shape(parameter) for name, parameter in named_trainable(engine)}


def fragments(engine: Any) -> Iterator[Fragment]:
    """This rank's fragments of all trained parameters; the optimizer's state must exist (`create_moments`).

    One after the other: moments of 8 bits are made fp32 for each, and there may not be room for all of them.
    """
    stage = engine.zero_optimization_stage()
    find = {0: _whole_parameter, 1: _flat_partition, 2: _flat_partition, 3: _parameter_partition}[stage]
    found = (find(engine, name, parameter) for name, parameter in named_trainable(engine))
    return (fragment for fragment in found if fragment is not None)


def create_moments(engine: Any) -> None:
    """Create the optimizer's state as it is before the first step (zeros), where it does not exist yet."""
    optimizer = _torch_optimizer(engine)
    state = optimizer.state
    for master in _masters(engine):
        if state.get(master):
            continue
        if _has_8_bits(optimizer):
            state[master] = eight_bit.new_state(optimizer, master)
        else:
            zeros = {moment: torch.zeros_like(master.data) for moment in MOMENTS}
            state[master] = {"step": torch.zeros((), dtype=torch.float32, device=_step_device(engine, master)), **zeros}


def writable_moments(engine: Any) -> AbstractContextManager[None]:
    """While a checkpoint is loaded: writing to the views of moments changes them, also where they have 8 bits."""
    state = _torch_optimizer(engine).state
    return eight_bit.writable([state[master] for master in _masters(engine)])


def optimizer_step(engine: Any) -> int:
    """How many updates AdamW has made."""
    state = _torch_optimizer(engine).state
    steps = {int(state[master]["step"]) for master in _masters(engine) if state.get(master)}
    assert len(steps) <= 1, f"parameters disagree on the optimizer's step: {sorted(steps)}"
    return steps.pop() if steps else 0


def set_optimizer_step(engine: Any, step: int) -> None:
    """Set AdamW's count of updates, on which its bias correction depends."""
    state = _torch_optimizer(engine).state
    for master in _masters(engine):
        if eight_bit.is_kept(state[master]):
            state[master]["step"] = step
        else:
            state[master]["step"].fill_(float(step))
    engine.global_steps = step


def set_learning_rate(engine: Any, learning_rate: float) -> None:
    """Set the learning rate of the coming update."""
    for group in _torch_optimizer(engine).param_groups:
        group["lr"] = learning_rate


@torch.no_grad()
def publish_weights(engine: Any) -> None:
    """Carry the fp32 masters into the weights that the model computes with; all ranks must call it."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


def accumulate(engine: Any, loss: torch.Tensor) -> None:
    """Add a micro batch's gradients to the step's; all ranks must call it, `rounds` times a step.

    DeepSpeed averages gradients over ranks, and is told not to divide by the number of micro batches.
    """
    engine.backward(loss, scale_wrt_gas=False)
    if not engine.is_gradient_accumulation_boundary():
        engine.step()


def update(engine: Any) -> float | None:
    """Make the optimizer's update at the end of a step; returns the 2-norm of its gradients before clipping.

    All ranks must call it, once all micro batches of the step have gone through `accumulate`. Where a gradient is not
    finite on any rank, all of them drop the gradients, change nothing and return None.
    """
    if engine.zero_optimization_stage() > 0:
        engine.step()  # finds it by the norm, which all ranks share
        return None if engine.optimizer.overflow else float(engine.get_global_grad_norm())
    gradients = [p.grad for _, p in named_trainable(engine) if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if math.isfinite(norm):
        engine.step()
        return norm
    # Everything else that the engine does at the end of a step has to happen: it counts micro batches, for one.
    engine.optimizer.step = lambda: None
    try:
        engine.step()
    finally:
        del engine.optimizer.step
    return None


# ---- the forms that DeepSpeed keeps state in -------------------------------------------------------------------------


def _whole_parameter(engine: Any, name: str, parameter: nn.Parameter) -> Fragment:
    views = _views(engine, parameter, 0, parameter.numel())
    return Fragment(name, tuple(parameter.shape), 0, parameter.numel(), views, replicated=True)


def _flat_partition(engine: Any, name: str, parameter: Any) -> Fragment | None:
    """ZeRO 1 and 2: a parameter's group is flattened and cut; this rank may hold none, some or all of it."""
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    flat = _masters(engine)[mapping.param_group_index]
    start, length = mapping.hp_fragment_address.start, mapping.hp_fragment_address.numel
    views = _views(engine, flat, start, length)
    return Fragment(name, tuple(parameter.shape), mapping.lp_fragment_address.start, length, views)


def _parameter_partition(engine: Any, name: str, parameter: Any) -> Fragment | None:
    """ZeRO 3: each parameter is cut into equal parts, the last one padded."""
    optimizer = engine.optimizer
    group, start, part = optimizer.grad_position[optimizer.get_param_id(parameter)]
    offset = engine.global_rank * part
    length = min(part, parameter.ds_numel - offset)
    if length <= 0:
        return None
    views = _views(engine, optimizer.fp32_partitioned_groups_flat[group], start, length)
    return Fragment(name, tuple(parameter.ds_shape), offset, length, views)


def _views(engine: Any, master: torch.Tensor, start: int, length: int) -> dict[str, torch.Tensor]:
    """A range of a master and its moments, flat; without copying where they are kept in fp32."""
    state = _torch_optimizer(engine).state[master]
    found = {MASTER: master.data.view(-1).narrow(0, start, length)}
    for moment in MOMENTS:
        if eight_bit.is_kept(state):
            found[moment] = eight_bit.moment(state, moment, start, length)
        else:
            found[moment] = state[moment].view(-1).narrow(0, start, length)
    return found


def _masters(engine: Any) -> list[torch.Tensor]:
    """The tensors that AdamW steps, in the order of DeepSpeed's groups."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage == 3:
        return list(optimizer.fp32_partitioned_groups_flat)
    if stage in (1, 2):
        # BF16_Optimizer (ZeRO 1 in bf16) and DeepSpeedZeroOptimizer call the same thing by two names.
        flat = getattr(optimizer, "fp32_groups_flat_partition", None)
        return list(flat if flat is not None else optimizer.single_partition_of_fp32_groups)
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _torch_optimizer(engine: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = (
        engine.optimizer if engine.zero_optimization_stage() == 0 else engine.optimizer.optimizer
    )
    return optimizer


def _has_8_bits(optimizer: torch.optim.Optimizer) -> bool:
    return "moment_bits" in optimizer.param_groups[0]


def _step_device(engine: Any, master: torch.Tensor) -> torch.device:
    """Fused AdamW wants its step count beside the parameters, the plain one on the CPU."""
    fused = any(group.get("fused") for group in _torch_optimizer(engine).param_groups)
    return master.device if fused else torch.device("cpu")


def _optimizer(groups: list[dict[str, Any]], train: TrainSection) -> torch.optim.Optimizer:
    if train.optimizer == "adamw_8bit":
        return eight_bit.build(groups, train)
    fused = {"fused": True} if torch.cuda.is_available() and train.device != "cpu" else {}
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=train.betas, eps=train.eps, **fused)


def _full_shape(parameter: Any) -> tuple[int, ...]:
    return tuple(parameter.ds_shape) if hasattr(parameter, "ds_shape") else tuple(parameter.shape)

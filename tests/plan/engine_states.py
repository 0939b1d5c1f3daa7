"""One worker of a group on this machine: an engine is built and makes a step, and its tensors are counted.

    python engine_states.py RANK WORLD_SIZE FOLDER SETTINGS

Prints the bytes of parameters, gradients and optimizer as JSON. SETTINGS: {"stage", "precision", "rounds", "lora"}.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def main() -> None:
    """Build, step, count."""
    rank, world_size, folder, settings = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
    os.environ["DS_ACCELERATOR"] = "cpu"

    import torch

    from scaletrain.train.local import process_group
    from scaletrain.train.worker import Worker, prepare_process

    worker = Worker(rank, world_size, rank, world_size, torch.device("cpu"))
    prepare_process(worker, deterministic=False)
    with process_group(worker, rendezvous=folder / "rendezvous", timeout_s=120):
        found = [count(engine(folder, each), each) for each in settings]
    (folder / f"counted-{rank}.json").write_text(json.dumps(found))


def engine(folder: Path, settings: dict[str, Any]) -> Any:
    """The engine of a tiny model, as training builds it, after one forward and backward pass."""
    import torch

    from scaletrain.config_file import parse_config
    from scaletrain.model.build import load_model
    from scaletrain.model.loss import LossModel
    from scaletrain.train import zero

    config = parse_config(
        "name: run\nmodel: {source: m}\ndata: {corpora: [{format: messages, source: t.jsonl}], seq_len: 16}\n"
        "train: {steps: 1, global_batch_size: 8, micro_batch_size: 2}\n",
        source="test",
        overrides=[f"zero.stage={settings['stage']}", *settings.get("overrides", ())],
    )
    dtype = torch.bfloat16 if settings["precision"] == "bf16" and settings["stage"] > 0 else torch.float32
    computing = torch.bfloat16 if settings["precision"] == "bf16" else torch.float32
    model = load_model(str(folder / "model"), config.model, dtype=dtype, attention="sdpa", computing=computing)
    rounds = settings.get("rounds", 1)
    built = zero.build_engine(LossModel(model), config, rounds=rounds, precision=settings["precision"])
    zero.create_moments(built)
    ids = torch.ones((2, 16), dtype=torch.long)
    batch = {"input_ids": ids, "labels": ids, "positions": torch.arange(16).expand(2, 16), "documents": ids}
    built.backward(built(**batch), scale_wrt_gas=False)
    return built


def count(built: Any, settings: dict[str, Any]) -> dict[str, int]:
    """Bytes of the storages behind the engine's tensors, each storage once."""
    from scaletrain.train import zero

    stage, optimizer, torch_optimizer = settings["stage"], built.optimizer, zero._torch_optimizer(built)
    weights = list(built.module.parameters())
    masters = zero._masters(built)
    states = [torch_optimizer.state[each] for each in masters]
    kept = ("exp_avg", "exp_avg_sq", "state1", "state2", "absmax1", "absmax2")
    moments = [state[name] for state in states for name in kept if name in state]
    if stage == 3:
        parameters = [each.ds_tensor for each in weights]
        gradients = [optimizer.grad_partitions_flat_buffer]
    elif hasattr(optimizer, "fp32_groups_gradients_flat"):
        parameters = [*weights, *_scales(built.module)]
        gradients = [*optimizer.fp32_groups_gradients_flat, *(each.grad for each in weights if each.grad is not None)]
    else:
        parameters = [*weights, *_scales(built.module)]
        averaged = getattr(optimizer, "averaged_gradients", {})
        gradients = [each for group in averaged.values() for each in group or ()]
        gradients += [each.grad for each in weights if each.grad is not None]
    masters = [] if stage == 0 else masters
    return {
        "parameters": _bytes(parameters),
        "gradients": _bytes(gradients),
        "optimizer": _bytes([*masters, *moments]),
    }


def _scales(module: Any) -> list[Any]:
    """What weights in 4 bits have beside their codes."""
    from scaletrain.model.quantization import quantized_layers

    states = [layer.weight.quant_state for layer in quantized_layers(module)]
    return [
        each
        for state in states
        for each in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    ]


def _bytes(tensors: Iterable[Any]) -> int:
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())


if __name__ == "__main__":
    main()

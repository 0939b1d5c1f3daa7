"""One rank of test_build's ZeRO-3 test: zero3_worker.py MODEL_URL, under torchrun."""

import sys
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from scaletrain.config_model import LoraSection, ModelSection
from scaletrain.model.build import load_model
from scaletrain.model.loss import IGNORED, LossModel
from scaletrain.train.extensions import build_extensions


def main(model_url: str) -> None:
    build_extensions()
    deepspeed.init_distributed("gloo")
    for lora in (None, LoraSection(rank=4)):
        train_two_steps(model_url, ModelSection(source="x", lora=lora))
    print("as expected")


def train_two_steps(model_url: str, section: ModelSection) -> None:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    model = load_model(model_url, section, dtype=torch.float32, attention="sdpa", zero3=config)
    base = model.get_base_model() if section.lora else model
    for name, parameter in base.named_parameters():
        if "lora_" not in name:
            assert parameter.numel() == 0, f"{name} is held whole"
            assert parameter.ds_tensor.numel() < parameter.ds_numel, f"{name} is not partitioned"
    assert base.lm_head.weight is base.model.embed_tokens.weight

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=LossModel(model), optimizer=torch.optim.AdamW(trained), config=config)
    whole = LossModel(load_model(model_url, section, dtype=torch.float32, attention="sdpa"))
    assert all(parameter.numel() > 0 for parameter in whole.parameters()), "ZeRO-3 stayed on"
    for step in range(2):
        ids = torch.arange(16)[None] + 16 * step
        # In the second step this rank's micro batch is a filler on rank 1: nothing supervised, the same collectives.
        labels = torch.full_like(ids, IGNORED) if step == 1 and dist.get_rank() == 1 else ids.clone()
        inputs = {"labels": labels, "positions": torch.arange(16)[None], "documents": torch.ones_like(ids)}
        loss = engine(input_ids=ids, **inputs)
        if step == 0:
            torch.testing.assert_close(loss, whole(input_ids=ids, **inputs), atol=1e-4, rtol=1e-5)
        engine.backward(loss)
        engine.step()
    engine.destroy()


if __name__ == "__main__":
    main(sys.argv[1])

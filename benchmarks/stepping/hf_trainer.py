"""Hugging Face's Trainer with DeepSpeed ZeRO-2: padded as it is by default, and padding-free with the best kernels.

Settings follow its documentation (https://huggingface.co/docs/transformers/deepspeed and .../data_collator). An item
of the dataset is a packed row's documents, in the order of the other arms, so that steps are the same documents
everywhere; the collator sees the documents.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from stepping.ours import Clock
from stepping.work import Document, Found, Work, peers_model

DEEPSPEED = {
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2, "overlap_comm": True, "contiguous_gradients": True},
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "steps_per_print": 10**9,
}


@dataclass(frozen=True)
class Settings:
    """`padded`: to the longest document of a micro batch. `rows`: packed rows' documents in a micro batch."""

    padded: bool
    liger: bool
    attention: str
    rows: int


def run_trainer(work: Work, settings: Settings, *, folder: str) -> Found:
    """Train the work's steps with transformers.Trainer."""
    from transformers import Trainer, TrainingArguments

    clock = Clock(work)

    rows = sum(len(step.rows) for step in work.steps) // len(work.steps)
    arguments = TrainingArguments(
        per_device_train_batch_size=settings.rows,
        gradient_accumulation_steps=rows // settings.rows,
        use_liger_kernel=settings.liger,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        gradient_checkpointing=work.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        **shared_arguments(work, folder),
    )
    trainer = Trainer(
        model=peers_model(work, attention=settings.attention),
        args=arguments,
        train_dataset=[{"documents": row} for step in work.steps for row in step.rows],  # type: ignore[arg-type]
        data_collator=_padded if settings.padded else _flattened,
        callbacks=[noting(clock)],
    )
    trainer.train()
    return clock.found()


def shared_arguments(work: Work, folder: str) -> dict[str, Any]:
    """What the arms that build on transformers' Trainer are told alike: the same updates, and nothing besides."""
    cuda = work.device == "cuda"
    return {
        "output_dir": folder,
        "max_steps": len(work.steps),
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused" if cuda else "adamw_torch",
        "bf16": cuda,
        "use_cpu": not cuda,
        "deepspeed": copy.deepcopy(DEEPSPEED) if cuda else None,
        "train_sampling_strategy": "sequential",
        "dataloader_num_workers": 2 if cuda else 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def noting(clock: Clock) -> Any:
    """A callback that tells the clock of each step's loss and its gradients' norm."""
    from transformers import TrainerCallback

    class Noting(TrainerCallback):
        def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            if logs is not None and "loss" in logs:
                clock.step_ended(logs["loss"], logs["grad_norm"])

    return Noting()


def _padded(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What DataCollatorForSeq2Seq(pad_to_multiple_of=8) makes of documents."""
    documents: list[Document] = [document for item in items for document in item["documents"]]
    length = -(-max(len(document.input_ids) for document in documents) // 8) * 8

    def padded(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (length - len(values))

    return {
        "input_ids": torch.tensor([padded(each.input_ids, 0) for each in documents]),
        "labels": torch.tensor([padded(each.labels, -100) for each in documents]),
        "attention_mask": torch.tensor([padded([1] * len(each.input_ids), 0) for each in documents]),
    }


def _flattened(items: list[dict[str, Any]]) -> dict[str, Any]:
    """transformers' own collator for padding-free training, with the boundaries that flash attention wants."""
    from transformers import DataCollatorWithFlattening

    features = [{"input_ids": each.input_ids, "labels": each.labels} for item in items for each in item["documents"]]
    collate = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_tensors="pt")
    batch: dict[str, Any] = collate(features)
    return batch

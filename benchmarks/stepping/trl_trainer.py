"""TRL's SFTTrainer, padding-free with Liger's kernels, as its documentation advises for speed.

https://huggingface.co/docs/trl/reducing_memory_usage and .../liger_kernel_integration. Its batches are a fixed number
of documents, so its steps are nearly those of the other arms: as many documents, taken in the same order.
"""

from typing import Any

from stepping.hf_trainer import noting, shared_arguments
from stepping.ours import Clock
from stepping.work import Found, Work, peers_model


def run_trl(work: Work, *, attention: str, rows: int, folder: str) -> tuple[Found, int]:
    """Train with SFTTrainer; returns what was found, and the tokens between the warm-up and the last step."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    clock = Clock(work)

    documents = [document for step in work.steps for row in step.rows for document in row]
    step_rows = sum(len(step.rows) for step in work.steps) // len(work.steps)
    rounds = step_rows // rows
    at_once = len(documents) // (len(work.steps) * rounds)
    arguments = SFTConfig(
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=rounds,
        use_liger_kernel=work.device == "cuda",
        padding_free=True,
        max_length=None,
        gradient_checkpointing=work.gradient_checkpointing,
        **shared_arguments(work, folder),
    )
    dataset = Dataset.from_list(
        [
            {"input_ids": each.input_ids, "assistant_masks": [int(label != -100) for label in each.labels]}
            for each in documents
        ]
    )
    trainer = SFTTrainer(
        model=peers_model(work, attention=attention),
        args=arguments,
        train_dataset=dataset,
        processing_class=_tokenizer(work.shape.vocab_size),
        callbacks=[noting(clock)],
    )
    trainer.train()
    taken = documents[work.warm_up * rounds * at_once : len(work.steps) * rounds * at_once]
    return clock.found(), sum(len(each.input_ids) for each in taken)


def _tokenizer(vocab_size: int) -> Any:
    """Something with a padding token: the documents are tokens already."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<end>": vocab_size - 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")

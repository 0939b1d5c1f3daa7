"""Which model is measured: the one that a run starts from, or one of its checkpoints; and how it is loaded."""

from dataclasses import dataclass
from typing import Any, Literal

from scaletrain import config_file
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.devices import dtype_of
from scaletrain.errors import ConfigError
from scaletrain.evaluate.measurement import Subject
from scaletrain.layout import RunLayout
from scaletrain.model import store
from scaletrain.model.build import load_model, load_tokenizer
from scaletrain.model.export import find_checkpoint, load_trained
from scaletrain.run_inputs import inputs_of

Device = Literal["cuda", "cpu"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Contender:
    """A model to measure; `manifest` is None for the one that the run starts from. `config` is the run's."""

    run: RunLayout
    config: Config
    model_url: str
    manifest: Manifest | None

    @property
    def model_name(self) -> str:
        return self.model_url.rpartition("/")[2]

    def tokenizer(self) -> Any:
        """The tokenizer with the chat template that the run trains with."""
        data = self.config.data
        return load_tokenizer(self.model_url, chat_template=data.chat_template, thinking=data.thinking)

    def load(self, device: Device, precision: Precision) -> Any:
        """The model on a device, adapters merged; raises CheckpointError, ModelError, StorageError."""
        dtype = dtype_of(precision)
        if self.manifest is not None:
            model: Any = load_trained(self.run, self.manifest, self.config)
        else:
            section = self.config.model.model_copy(update={"lora": None, "gradient_checkpointing": False})
            model = load_model(self.model_url, section, dtype=dtype, attention="sdpa")
        return model.to(device, dtype).eval()


def other_contender(run: RunLayout, step: int | None, *, tokenizer_hash: str) -> Contender:
    """A model of any run, to compare with: its newest checkpoint or that of a step; step 0 is what it started from.

    Raises ConfigError where its tokenizer is another one, so that the rows' tokens would mean nothing to it.
    """
    newest = find_checkpoint(run, None)
    config = config_file.load_config(run.config)
    model_url = inputs_of(run, newest).model_url
    if store.load_index(model_url).tokenizer_hash != tokenizer_hash:
        raise ConfigError(
            f"--against: {run.url} has another tokenizer than this run, so the two cannot be given the same rows; "
            "compare the bits per byte of two evaluations instead"
        )
    return Contender(run, config, model_url, None if step == 0 else find_checkpoint(run, step))


def subject_of(
    contender: Contender,
    *,
    of_run: RunLayout,
    dataset_id: str,
    rows: int,
    precision: str,
    config: Config,
    prompts: tuple[str, ...],
    texts: tuple[str, ...],
) -> Subject:
    """What a measurement of a contender depends on, measured as `config` says for the run `of_run`."""
    return Subject(
        run="" if contender.run == of_run else contender.run.name,
        step=0 if contender.manifest is None else contender.manifest.step,
        model=contender.model_name,
        checkpoint="" if contender.manifest is None else contender.manifest.manifest_hash,
        dataset_id=dataset_id,
        rows=rows,
        precision=precision,
        prompts=prompts,
        max_new_tokens=config.evaluate.max_new_tokens,
        system_prompt=contender.config.data.system_prompt,
        texts=texts,
        context=config.data.seq_len if texts else 0,
        stride=(config.evaluate.stride or config.data.seq_len // 2) if texts else 0,
    )

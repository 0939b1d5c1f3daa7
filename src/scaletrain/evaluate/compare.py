"""`scaletrain evaluate`: a run's model before and after training, measured on the same held-out conversations.

Each measurement is kept in the run's evaluation/ folder and made only once. Runs in this process, on one device.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import torch

from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.data.loader import rows_in_order
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.errors import CheckpointError, DataError
from scaletrain.evaluate import measurement
from scaletrain.evaluate.measurement import Measurement, Subject
from scaletrain.evaluate.perplexity import document_losses
from scaletrain.evaluate.samples import greedy_samples
from scaletrain.evaluate.summary import Evaluation, Trained
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger, progress
from scaletrain.metrics import read_records
from scaletrain.model.build import load_model, load_tokenizer
from scaletrain.model.export import find_checkpoint, load_trained
from scaletrain.run_inputs import inputs_of

log = get_logger(__name__)

Device = Literal["cuda", "cpu"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class _Setting:
    """What both measurements have in common."""

    config: Config
    dataset_url: str
    index: DatasetIndex
    model_url: str
    device: Device
    precision: Precision

    @property
    def run(self) -> RunLayout:
        return RunLayout(self.config.storage.root, self.config.name)


def evaluate(
    config: Config,
    *,
    device: Device,
    precision: Precision,
    step: int | None = None,
    only: Literal["base", "trained"] | None = None,
) -> Evaluation:
    """Measure the model that training starts from, and the run's newest checkpoint or the one at `step`.

    What is missing (dataset, model) is prepared; a run without a checkpoint gives the first measurement alone. Writes
    evaluation/base.json, step-00000100.json and, with both of them, summary.md. Raises CheckpointError where `step` or
    `only="trained"` asks for a checkpoint that is not there, and DataError where nothing was held out.
    """
    run = RunLayout(config.storage.root, config.name)
    manifest = checkpoint.latest(run) if step is None and only != "trained" else find_checkpoint(run, step)
    if manifest is None and only is None:
        log.info("%s has no checkpoint yet: only the model that training starts from is measured", config.name)
    prepared = inputs_of(run, manifest) if manifest is not None else prepare(config, use_ray=False)
    index = load_index(prepared.dataset_url)
    if "validation" not in index.splits or index.splits["validation"].rows == 0:
        raise DataError("nothing was held out to evaluate on; raise data.validation, or give more conversations")
    setting = _Setting(config, prepared.dataset_url, index, prepared.model_url, device, precision)
    before = after = trained = None
    if only != "trained":
        before = _measured(setting, None)
    if only != "base" and manifest is not None:
        after = _measured(setting, manifest)
        trained = _trained(run, manifest)
    evaluation = Evaluation(config.name, index.dataset_id, before, after, trained)
    if before is not None and after is not None:
        storage.write_text(storage.join(run.evaluation, "summary.md"), evaluation.markdown())
    return evaluation


def _measured(setting: _Setting, manifest: Manifest | None) -> Measurement:
    """The stored measurement of a checkpoint, or of the base model where `manifest` is None, or else a new one."""
    subject = _subject(setting, manifest)
    url = storage.join(setting.run.evaluation, f"{subject.label}.json")
    stored = measurement.find(url, subject)
    if stored is not None:
        log.info("%s was measured before, see %s", subject.label, url)
        return stored
    made = _measure(setting, subject, manifest)
    measurement.save(url, made)
    return made


def _subject(setting: _Setting, manifest: Manifest | None) -> Subject:
    config, rows = setting.config, setting.index.splits["validation"].rows
    model = _model_name(setting.model_url)
    if manifest is not None and _model_name(manifest.model_url) != model:
        raise CheckpointError(
            f"{setting.run.checkpoint(manifest.step)} was trained from {manifest.model_url}, this configuration starts "
            f"from {setting.model_url}: evaluate the run with its own configuration, {setting.run.config}"
        )
    return Subject(
        step=0 if manifest is None else manifest.step,
        model=model,
        checkpoint="" if manifest is None else manifest.manifest_hash,
        dataset_id=setting.index.dataset_id,
        rows=min(rows, config.evaluate.max_rows or rows),
        precision=setting.precision,
        prompts=config.evaluate.prompts,
        max_new_tokens=config.evaluate.max_new_tokens,
        system_prompt=config.data.system_prompt,
    )


def _measure(setting: _Setting, subject: Subject, manifest: Manifest | None) -> Measurement:
    config = setting.config
    started = time.perf_counter()
    micro_batches = rows_in_order(
        setting.dataset_url,
        setting.index,
        split="validation",
        rank=0,
        world_size=1,
        micro_batch_size=config.evaluate.micro_batch_size,
        max_rows=subject.rows,
    )
    tokenizer = load_tokenizer(setting.model_url, chat_template=config.data.chat_template)
    with progress(unit="rows and prompts") as bar:
        task = bar.add_task(f"measuring {subject.label}", total=subject.rows + len(subject.prompts))
        model = _load(setting, manifest)
        losses = document_losses(
            model, micro_batches, corpora=setting.index.corpora, on_rows=lambda rows: bar.advance(task, rows)
        )
        samples = greedy_samples(
            model,
            tokenizer,
            subject.prompts,
            max_new_tokens=subject.max_new_tokens,
            system_prompt=subject.system_prompt,
            on_sample=lambda: bar.advance(task),
        )
    return Measurement(
        subject=subject,
        losses=losses,
        samples=samples,
        device=setting.device,
        seconds=time.perf_counter() - started,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _load(setting: _Setting, manifest: Manifest | None) -> Any:
    """The model that training starts from, or that of a checkpoint, on the device and in the precision asked for."""
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    if manifest is not None:
        model: Any = load_trained(setting.run, manifest, setting.config)
    else:
        section = setting.config.model.model_copy(update={"lora": None})
        model = load_model(setting.model_url, section, dtype=dtype, attention="sdpa")
    return model.to(setting.device, dtype)


def _trained(run: RunLayout, manifest: Manifest) -> Trained:
    """What the manifest and the metrics say of the steps up to a checkpoint."""
    records: list[dict[str, Any]] = read_records(run.metrics)
    return Trained(
        steps=manifest.step,
        samples=manifest.samples_seen,
        tokens=int(manifest.scalars["tokens"]),
        supervised_tokens=int(manifest.scalars["supervised_tokens"]),
        seconds=sum(record["step_s"] for record in records if record["step"] <= manifest.step),
    )


def _model_name(model_url: str) -> str:
    return model_url.rpartition("/")[2]

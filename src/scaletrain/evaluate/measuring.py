"""Measuring one model as a run's evaluation says, once: what was measured before is found in the bucket."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import xxhash

from scaletrain import storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.data.prepare import Prepared, prepare
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.errors import CheckpointError, DataError
from scaletrain.evaluate import curve, measurement
from scaletrain.evaluate.contender import Contender, Device, Precision, subject_of
from scaletrain.evaluate.measurement import Measurement, Subject
from scaletrain.evaluate.on_ray import score_on_ray
from scaletrain.evaluate.origins import with_origins
from scaletrain.evaluate.rows import RowsToScore, score_here
from scaletrain.evaluate.samples import greedy_samples, read_prompts
from scaletrain.evaluate.texts import TextLosses, read_texts, text_losses
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger, progress
from scaletrain.run_inputs import inputs_of

log = get_logger(__name__)


@dataclass(frozen=True)
class Setting:
    """What all measurements of one evaluation have in common; `workers` above 1 share the rows through Ray."""

    config: Config
    prepared: Prepared
    index: DatasetIndex
    device: Device
    precision: Precision
    workers: int
    prompts: tuple[str, ...]
    texts: dict[str, list[str]]

    @property
    def run(self) -> RunLayout:
        return RunLayout(self.config.storage.root, self.config.name)

    def contender(self, manifest: Manifest | None) -> Contender:
        """The checkpoint of the run, or the model that it starts from; CheckpointError where these do not fit."""
        found = Contender(self.run, self.config, self.prepared.model_url, manifest)
        if manifest is not None and manifest.model_url.rpartition("/")[2] != found.model_name:
            raise CheckpointError(
                f"{self.run.checkpoint(manifest.step)} was trained from {manifest.model_url}, this configuration "
                f"starts from {found.model_url}: evaluate the run with its own configuration, {self.run.config}"
            )
        return found


def make_setting(
    config: Config, manifest: Manifest | None, *, device: Device, precision: Precision, workers: int
) -> Setting:
    """Find the inputs of a run (or prepare them, where it has no commit) and read prompts and texts."""
    run = RunLayout(config.storage.root, config.name)
    prompts = read_prompts(config.evaluate.prompts)
    texts = {url: read_texts(url) for url in config.evaluate.texts}
    prepared = inputs_of(run, manifest) if manifest is not None else prepare(config, use_ray=False)
    index = load_index(prepared.dataset_url)
    if "validation" not in index.splits or index.splits["validation"].rows == 0:
        raise DataError("nothing was held out to evaluate on; raise data.validation, or give more conversations")
    return Setting(config, prepared, index, device, precision, workers, prompts, texts)


def measured(setting: Setting, contender: Contender) -> Measurement:
    """The stored measurement of a model, or else a new one, which is kept."""
    subject = _subject(setting, contender)
    url = storage.join(setting.run.evaluation, f"{subject.label}.json")
    stored = measurement.find(url, subject)
    if stored is not None:
        log.info("%s was measured before, see %s", subject.label, url)
        return stored
    made = _measure(setting, contender, subject)
    measurement.save(url, made)
    if not subject.run:
        curve.add(setting.run, made)
    return made


def _subject(setting: Setting, contender: Contender) -> Subject:
    rows = setting.index.splits["validation"].rows
    return subject_of(
        contender,
        of_run=setting.run,
        dataset_id=setting.index.dataset_id,
        rows=min(rows, setting.config.evaluate.max_rows or rows),
        precision=setting.precision,
        config=setting.config,
        prompts=setting.prompts,
        texts=tuple(
            f"{url} {xxhash.xxh3_64_hexdigest(chr(0).join(texts).encode('utf-8', 'replace'))}"
            for url, texts in setting.texts.items()
        ),
    )


def _measure(setting: Setting, contender: Contender, subject: Subject) -> Measurement:
    started = time.perf_counter()
    work = RowsToScore(
        contender,
        setting.prepared.dataset_url,
        setting.index,
        subject.rows,
        setting.config.evaluate.micro_batch_size,
        setting.device,
        setting.precision,
    )
    with progress(unit="rows and prompts") as bar:
        task = bar.add_task(f"measuring {subject.label}", total=subject.rows + len(subject.prompts))

        def advance(count: int = 1) -> None:
            bar.advance(task, count)

        if setting.workers > 1:
            scored = score_on_ray(work, workers=setting.workers, on_rows=advance)
        model = contender.load(setting.device, setting.precision)
        if setting.workers == 1:
            scored = score_here(work, model, first=0, stop=subject.rows, on_rows=advance)
        tokenizer = contender.tokenizer()
        texts = tuple(_text_losses(setting, subject, model, tokenizer))
        samples = greedy_samples(
            model,
            tokenizer,
            subject.prompts,
            max_new_tokens=subject.max_new_tokens,
            system_prompt=subject.system_prompt,
            on_sample=advance,
        )
    return Measurement(
        subject=subject,
        answers=with_origins(scored.rows, setting.prepared.dataset_url, setting.index),
        calibration=scored.calibration,
        texts=texts,
        samples=samples,
        device=setting.device,
        seconds=time.perf_counter() - started,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _text_losses(setting: Setting, subject: Subject, model: Any, tokenizer: Any) -> list[TextLosses]:
    return [
        text_losses(
            model,
            tokenizer,
            texts,
            url=url,
            context=subject.context,
            stride=subject.stride,
            windows_at_once=setting.config.evaluate.micro_batch_size,
        )
        for url, texts in setting.texts.items()
    ]

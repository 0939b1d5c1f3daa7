"""`scaletrain evaluate`: a run's model before and after training, measured on the same held-out conversations.

Each measurement is kept in the run's evaluation/ folder and made only once; tasks and judge are asked each time, and
what they said last is kept beside them.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.data.shards import DatasetIndex
from scaletrain.errors import ConfigError
from scaletrain.evaluate import curve
from scaletrain.evaluate.contender import Contender, Device, Precision, other_contender
from scaletrain.evaluate.evaluation import Evaluation, Trained
from scaletrain.evaluate.judge_client import Judge
from scaletrain.evaluate.judging import Judgement, judge_samples
from scaletrain.evaluate.measurement import Measurement
from scaletrain.evaluate.measuring import Setting, make_setting, measured
from scaletrain.evaluate.tasks import TaskScore, check_tasks, run_tasks
from scaletrain.evaluate.watch import POLL_S, watch
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.metrics import read_records
from scaletrain.model.export import find_checkpoint

log = get_logger(__name__)


@dataclass(frozen=True)
class Other:
    """A model to compare with instead of the one that training starts from: a run's newest checkpoint, or a step's."""

    run: RunLayout
    step: int | None


def evaluate(
    config: Config,
    *,
    device: Device,
    precision: Precision,
    step: int | None = None,
    only: Literal["base", "trained"] | None = None,
    against: Other | None = None,
    workers: int = 1,
    tasks: tuple[str, ...] = (),
    judge: Judge | None = None,
) -> Evaluation:
    """Measure the model that training starts from, and the run's newest checkpoint or the one at `step`.

    What is missing (dataset, model) is prepared; a run without a checkpoint gives the first measurement alone. More
    than one of `workers` share the rows through Ray. Writes evaluation/base.json, step-00000100.json and curve.json.
    Raises CheckpointError where `step`, `against`, `judge` or `only="trained"` asks for a checkpoint that is not there,
    DataError where nothing was held out, and ConfigError where tasks cannot be run or the models cannot be compared.
    """
    run = RunLayout(config.storage.root, config.name)
    check_tasks(tasks)
    must_be_trained = step is not None or only == "trained" or against is not None or judge is not None
    manifest = find_checkpoint(run, step) if must_be_trained else checkpoint.latest(run)
    if manifest is None and only is None:
        log.info("%s has no checkpoint yet: only the model that training starts from is measured", config.name)
    setting = make_setting(config, manifest, device=device, precision=precision, workers=workers)
    contenders: dict[str, Contender] = {}
    if against is not None:
        contenders["before"] = other_contender(against.run, against.step, tokenizer_hash=setting.index.tokenizer)
    elif only != "trained":
        contenders["before"] = setting.contender(None)
    if only != "base" and manifest is not None:
        contenders["after"] = setting.contender(manifest)
    found = {name: measured(setting, contender) for name, contender in contenders.items()}
    scores = {name: _scores(setting, each, tasks) for name, each in contenders.items()} if tasks else {}
    for name, of_model in scores.items():
        _keep(run, f"tasks-{found[name].subject.label}.json", {"scores": [asdict(score) for score in of_model]})
    judgement = None if judge is None else _judged(judge, found["before"], found["after"])
    if judgement is not None:
        _keep(run, "judgement.json", judgement.record())
    return Evaluation(
        run=config.name,
        dataset_id=setting.index.dataset_id,
        before=found.get("before"),
        after=found.get("after"),
        trained=_trained(run, manifest) if "after" in found and manifest is not None else None,
        curve=curve.read(run),
        tasks=tuple((name, score) for name, of_model in scores.items() for score in of_model),
        judgement=judgement,
    )


def watch_run(
    config: Config, *, device: Device, precision: Precision, workers: int = 1, poll_s: float = POLL_S
) -> Iterator[Evaluation]:
    """Yield an evaluation of each commit of a run, against what it started from, as they come; ends with the run."""
    run = RunLayout(config.storage.root, config.name)
    setting: Setting | None = None
    before: Measurement | None = None
    if checkpoint.newest_whole(run) is None:
        log.info("waiting for the first checkpoint of %s", run.url)

    def measure(manifest: Manifest) -> Measurement:
        nonlocal setting, before
        if setting is None:
            setting = make_setting(config, manifest, device=device, precision=precision, workers=workers)
            before = measured(setting, setting.contender(None))
        return measured(setting, setting.contender(manifest))

    def last_step() -> int | None:
        return None if setting is None else _last_step(config, setting.index)

    for after in watch(run, measure, last_step=last_step, poll_s=poll_s):
        assert setting is not None
        yield Evaluation(config.name, setting.index.dataset_id, before, after, None, curve.read(run))


def _last_step(config: Config, index: DatasetIndex) -> int:
    """The number of updates in the whole run."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None
    return math.ceil(config.train.epochs * index.splits["train"].rows / config.train.global_batch_size)


def _scores(setting: Setting, contender: Contender, tasks: tuple[str, ...]) -> tuple[TaskScore, ...]:
    model = contender.load(setting.device, setting.precision)
    return run_tasks(
        model,
        contender.tokenizer(),
        tasks,
        batch_size=setting.config.evaluate.micro_batch_size,
        system_prompt=contender.config.data.system_prompt,
    )


def _judged(judge: Judge, before: Measurement, after: Measurement) -> Judgement:
    if not before.samples:
        raise ConfigError("--judge-url: there are no answers to judge; give evaluate.prompts")
    return judge_samples(judge, before.samples, after.samples, labels=(before.subject.label, after.subject.label))


def _keep(run: RunLayout, name: str, record: dict[str, object]) -> None:
    """Keep what was made beside the measurements; the last one made stays."""
    data = orjson.dumps({"version": 1, **record}, option=orjson.OPT_INDENT_2)
    storage.write_bytes(storage.join(run.evaluation, name), data)


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

"""From what a user asks to a study of it: the parts put together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scaletrain import checkpoint
from scaletrain.config import Config
from scaletrain.data.shards import load_index
from scaletrain.errors import ConfigError, Problems, ScaletrainError
from scaletrain.layout import RunLayout
from scaletrain.simulate.display import study_display, study_record
from scaletrain.simulate.inputs import Measured, make_inputs, read_measured
from scaletrain.simulate.pools import Machinery, make_pools
from scaletrain.simulate.report import report_html
from scaletrain.simulate.setting import GPU_LOSSES_PER_HOUR, Setting
from scaletrain.simulate.study import Study, study

if TYPE_CHECKING:
    from rich.console import RenderableType

_NOTICE_S = 30.0  # where no cloud is named: the shorter of the two clouds' notices


@dataclass(frozen=True)
class Question:
    """What is asked; `workers` are the fewest and the most to look within, None: those of the configuration."""

    config: Config
    run: RunLayout
    trace: str | None
    machine: str | None
    head: str | None
    region: str | None
    workers: tuple[int, int] | None
    days: float | None
    deadline_days: float | None
    taken_per_month: float | None
    parameters: int | None
    runs: int
    seed: int


@dataclass(frozen=True)
class Answer:
    """A study, and what it rests on."""

    study: Study
    origins: Mapping[str, str]
    notes: tuple[str, ...]
    name: str
    seed: int

    def record(self) -> dict[str, Any]:
        return study_record(self.study, origins=self.origins, notes=self.notes, seed=self.seed)

    def display(self) -> "RenderableType":
        return study_display(self.study, origins=self.origins, notes=self.notes)

    def report(self) -> bytes:
        return report_html(self.study, name=self.name, origins=self.origins, notes=self.notes)


def answer(question: Question) -> Answer:
    """Simulate what is asked. Raises ConfigError with everything that is missing or wrong, StorageError."""
    measured = read_measured(question.run)
    problems = Problems()
    if question.trace is not None and question.taken_per_month is not None:
        problems.append("got --trace and --taken-per-month; a trace says how often machines are taken: keep one")
    with problems.collecting():
        machinery = make_pools(
            question.config,
            machine=question.machine,
            region=question.region,
            trace=question.trace,
            taken_per_month=question.taken_per_month,
            head=question.head,
        )
    with problems.collecting():
        inputs = make_inputs(
            question.config,
            measured,
            steps=_steps(question),
            days=question.days,
            parameters=question.parameters or _parameters(question.config, measured),
        )
        setting, origins = inputs.setting, dict(inputs.origins)
    problems.raise_any()
    setting = _on(setting, machinery, origins)
    fewest, most = question.workers or (setting.least, setting.most)
    found = study(
        setting,
        machinery.pools,
        fewest=fewest,
        most=most,
        runs=question.runs,
        seed=question.seed,
        knows_prices=machinery.knows_prices,
        deadline_hours=24 * question.deadline_days if question.deadline_days else None,
    )
    return Answer(found, origins, machinery.notes, question.config.name, question.seed)


def _on(setting: Setting, machinery: Machinery, origins: dict[str, str]) -> Setting:
    """The setting on these machines: what they tell before they go, and how often they break."""
    notice_s = _NOTICE_S if machinery.notice_s is None else machinery.notice_s
    origins["notice"] = f"{notice_s:g} s before a spot machine is taken"
    rate = GPU_LOSSES_PER_HOUR * machinery.gpus_per_machine
    if rate:
        origins["broken machines"] = f"one in {1 / rate / 24:,.0f} days: Grattafiori et al. 2024 (arXiv:2407.21783)"
    origins["a new machine"] = f"comes after {setting.launch_s:g} s: assumed"
    return replace(
        setting,
        notice_s=notice_s,
        hardware_losses_per_hour=rate,
        head_usd_per_hour=machinery.head_usd_per_hour,
    )


def _steps(question: Question) -> int:
    """The updates of the whole run; by epochs they are known once its rows are."""
    steps = question.config.train.steps
    if steps is not None:
        return steps
    newest = checkpoint.latest(question.run)
    if newest is None:
        raise ConfigError("train.epochs says how many steps only once the run has begun: give train.steps=...")
    from scaletrain.train.trainer import count_steps

    return count_steps(question.config, load_index(newest.dataset_url))


def _parameters(config: Config, measured: Measured | None) -> int | None:
    """The parameters that are trained, where neither a checkpoint nor the user tells how large the state is."""
    if measured is not None and measured.state_bytes is not None:
        return None
    from scaletrain.model.settings import read_shape
    from scaletrain.model.shape import count

    try:
        return count(read_shape(config.model, root=config.storage.root), config.model.lora).trained
    except ScaletrainError:  # what to do instead is said by who needs the number
        return None

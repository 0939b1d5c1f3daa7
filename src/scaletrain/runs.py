"""What runs there are, how far each one is and where its time went, read from the bucket alone."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scaletrain import checkpoint, storage
from scaletrain.attempts import read_attempts
from scaletrain.cost import CostAccount
from scaletrain.errors import CheckpointError, NotFoundError
from scaletrain.goodput import TimeAccount, time_table
from scaletrain.layout import RunLayout, step_of
from scaletrain.metrics import read_last_record

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


@dataclass(frozen=True)
class CheckpointState:
    """One checkpoint folder; `problem` is empty where it is committed and whole by its sizes."""

    step: int
    size_bytes: int
    world_size: int
    zero_stage: int
    created: str
    problem: str


@dataclass(frozen=True)
class RunState:
    """How far a run is; `step` is the newest committed one, `last_metrics` the newest line, committed or not."""

    name: str
    url: str
    step: int
    attempts: int
    checkpoints: tuple[CheckpointState, ...]
    last_metrics: dict[str, object]

    def record(self) -> dict[str, object]:
        """The state as plain data."""
        return asdict(self)


def list_runs(root: str) -> list[RunState]:
    """Every run below a storage root, by name."""
    return [read_run(RunLayout(root, name)) for name in storage.list_folders(storage.join(root, "runs"))]


def read_run(run: RunLayout) -> RunState:
    """Read the state of one run; raises NotFoundError where there is none."""
    check_exists(run)
    newest = checkpoint.latest(run)
    return RunState(
        name=run.name,
        url=run.url,
        step=newest.step if newest else 0,
        attempts=len(read_attempts(run).claimed),
        checkpoints=tuple(_checkpoints(run)),
        last_metrics=read_last_record(run.metrics),
    )


def check_exists(run: RunLayout) -> None:
    """Raise NotFoundError where there is no such run."""
    if not storage.exists(run.config):
        raise NotFoundError(f"there is no run at {run.url}; `scaletrain runs ROOT` lists those that there are")


def find_run(name_or_url: str, *, root: str) -> RunLayout:
    """The run that a user means: a URL or path of a run's folder, or a run's name below `root`."""
    parent, _, name = name_or_url.rstrip("/").rpartition("/")
    if parent.rpartition("/")[2] == "runs" and name:
        return RunLayout(parent.rpartition("/")[0] or ".", name)
    return RunLayout(root, name_or_url)


def runs_table(runs: list[RunState]) -> "Table":
    """Runs as a table."""
    from rich.table import Table

    table = Table("run", "step", "loss", "checkpoints", "attempts", "last step at")
    for run in runs:
        metrics = run.last_metrics
        loss = "-" if metrics.get("loss") is None else f"{metrics['loss']:.4f}"
        committed = sum(not one.problem for one in run.checkpoints)
        table.add_row(run.name, str(run.step), loss, str(committed), str(run.attempts), str(metrics.get("time", "-")))
    return table


def run_display(run: RunState, time: TimeAccount, cost: CostAccount) -> "RenderableType":
    """One run, and where its time and its money went, as a person reads it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("checkpoint", "size", "workers", "ZeRO", "committed at", "problem")
    for one in run.checkpoints:
        table.add_row(
            str(one.step),
            f"{one.size_bytes / 1e6:,.1f} MB",
            str(one.world_size),
            str(one.zero_stage),
            one.created,
            one.problem,
        )
    lines = [f"{run.name}: step {run.step} committed, {run.attempts} attempts", run.url]
    lines += [f"  {name}: {value}" for name, value in run.last_metrics.items()]
    parts: list[RenderableType] = [Text("\n".join(lines)), table]
    if time.attempts:
        parts += [time_table(time, cost.by_part), Text(_cost_line(cost))]
    return Group(*parts)


def _cost_line(cost: CostAccount) -> str:
    if cost.usd is None:
        return "cost: unknown, as a machine's price is (see docs/money.md: budget.usd_per_machine_hour, budget.prices)"
    return f"cost: {cost.usd:,.2f} USD, {cost.lost_work_usd:,.2f} of them for lost work"


def _checkpoints(run: RunLayout) -> list[CheckpointState]:
    found = []
    for name in storage.list_folders(run.checkpoints):
        step = step_of(name)
        if step is None:
            continue
        url = run.checkpoint(step)
        try:
            manifest = checkpoint.load_manifest(url)
            checkpoint.check_sizes(url, manifest)
        except NotFoundError:
            found.append(CheckpointState(step, 0, 0, 0, "", "not committed"))
        except CheckpointError as error:
            found.append(CheckpointState(step, 0, 0, 0, "", str(error)))
        else:
            found.append(
                CheckpointState(
                    step, manifest.size_bytes, manifest.world_size, manifest.zero_stage, manifest.created, ""
                )
            )
    return found

"""Finding a run, and what is in its folder: its checkpoints and its newest line of metrics, from the bucket alone."""

from dataclasses import asdict, dataclass
from difflib import get_close_matches

from scaletrain import checkpoint, storage
from scaletrain.attempts import read_attempts
from scaletrain.errors import CheckpointError, NotFoundError
from scaletrain.layout import RunLayout, step_of
from scaletrain.metrics import read_last_record


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


def read_run(run: RunLayout) -> RunState:
    """Read the state of one run; raises NotFoundError where there is none."""
    check_exists(run)
    newest = checkpoint.newest_whole(run)
    return RunState(
        name=run.name,
        url=run.url,
        step=newest.step if newest else 0,
        attempts=len(read_attempts(run).claimed),
        checkpoints=tuple(_checkpoints(run)),
        last_metrics=read_last_record(run.metrics),
    )


def check_exists(run: RunLayout) -> None:
    """Raise NotFoundError where there is no such run, with the names that come near."""
    if storage.exists(run.config):
        return
    names = storage.list_folders(storage.join(run.root, "runs"))
    near = get_close_matches(run.name, names, n=3, cutoff=0.6)
    told = f"did you mean {' or '.join(near)}?" if near else f"`scaletrain runs {run.root}` lists those that there are"
    if not names:
        told = "`scaletrain train CONFIG` begins one; another storage root is named by --root, or by the run's CONFIG"
    if run.name in names:
        told = "it has a folder, as of an evaluation, but has not begun to train; `scaletrain train CONFIG` begins it"
    raise NotFoundError(f"there is no run at {run.url}; {told}")


def find_run(name_or_url: str, *, root: str) -> RunLayout:
    """The run that a user means: a URL or path of a run's folder, or a run's name below `root`."""
    parent, _, name = name_or_url.rstrip("/").rpartition("/")
    if parent.rpartition("/")[2] == "runs" and name:
        return RunLayout(parent.rpartition("/")[0] or ".", name)
    return RunLayout(root, name_or_url)


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

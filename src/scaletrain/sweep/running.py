"""Running a sweep: all is checked, what the trials share is prepared once, and they train until all are over.

The same command goes on where the last one ended, on another machine too: trials that are over are not run again, the
others go on from their own newest commits. Ctrl-C and SIGTERM make all trials save first.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from scaletrain import checkpoint, devices, ray_cluster, storage
from scaletrain.config import Config, WorkerRange
from scaletrain.config_sweep import SweepSection
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import Interrupted, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.sweep import limits
from scaletrain.sweep.checking import check_sweep, trial_config
from scaletrain.sweep.machines import read_watched, watch_of
from scaletrain.sweep.opening import at_work, open_sweep
from scaletrain.sweep.progress import Progress
from scaletrain.sweep.records import SweepLayout, TrialRecord, read_trials
from scaletrain.sweep.report import publish
from scaletrain.sweep.results import Results
from scaletrain.sweep.space import Values
from scaletrain.sweep.state import Sweep
from scaletrain.train import on_ray
from scaletrain.train.trainer import count_steps
from scaletrain.train.waiting import Room, find_room
from scaletrain.train.worker import available_cpus

_LOOK_S = 0.5
_ASK_EVERY_S = 2.0
_COUNT_EVERY_S = 5.0
_PUBLISH_EVERY_S = 30.0
_STOPPING = "stopping: all trials finish their steps and are saved first (once more: stop at once, unsaved)"
# What may differ between two commands that work on one sweep.
_MAY_CHANGE = re.compile(
    r"sweep\.(at_once|retries|trials|limit\..*)|(storage|scaling|evaluate|serve|track|budget|alerts|debug)(\..*)?"
)

log = get_logger(__name__)


@dataclass(frozen=True)
class Ended:
    """How a command that worked on a sweep ended; `short_of` says what a limit left undone, and what it would need."""

    layout: SweepLayout
    results: Results
    short_of: str


def run_sweep(config: Config) -> Ended:
    """Run a sweep until all trials are over, a limit is reached, or a signal comes.

    Raises ConfigError with every problem before anything starts, Interrupted after a signal (all trials were saved),
    TrainingError where every trial failed, and whatever ScaletrainError ends the sweep as a whole.
    """
    section = check_sweep(config)
    opened = open_sweep(config, may_change=_may_change, noun="sweep", parts="trials", forget=_forget_trials)
    config, layout = opened.config, opened.layout
    with at_work(opened, num_cpus=_cpus(config, section), stopping=_STOPPING) as stop:
        gpus = on_ray.count_gpus()
        device = devices.resolve_device(config.train.device, gpus=gpus)
        devices.check_gpus(config, device)
        at_once = _at_once(config, section, gpus=gpus if device == "cuda" else None)
        sweep = Sweep(config, section, at_once=at_once, total_steps=_Preparation(config).total_steps)
        room = partial(find_room, config.scaling, device=device) if _share_workers(config, section) else None
        earlier = read_watched(layout)
        machines = watch_of(config, layout, opened.attempt, device=device, workers_wanted=lambda: sweep.workers_wanted)

        def publish_all() -> Results:
            watched = earlier if machines is None else (*earlier, machines.write())
            return publish(layout, config, section, dict(sweep.trials), watched)

        with machines or nullcontext():
            if room is not None:
                _begin_sharing(sweep, room(), config, at_once)
            short_of = _watch(
                sweep,
                config,
                section,
                at_once,
                stop.asked,
                stop_request=layout.stop_request(opened.attempt),
                before_s=opened.before_s,
                room=room,
                publish_all=publish_all,
            )
    results = publish_all()
    if stop.asked.is_set() and not sweep.is_over:
        raise Interrupted(f"{_counts(sweep.trials)}; all are saved, and the same command goes on from there")
    if sweep.trials and all(each.state == "failed" for each in sweep.trials.values()):
        reasons = [f"trial {each.number}: {each.reason}" for each in sweep.trials.values()]
        raise TrainingError("\n  ".join(["every trial failed:", *reasons]))
    if short_of and results.best is None:
        raise TrainingError(f"{short_of}. No trial came to its end; all are saved, and a higher limit lets them go on")
    return Ended(layout, results, short_of)


def _watch(
    sweep: Sweep,
    config: Config,
    section: SweepSection,
    at_once: int,
    stop: threading.Event,
    *,
    stop_request: str,
    before_s: float,
    room: Callable[[], Room] | None,
    publish_all: Callable[[], object],
) -> str:
    """Have the trials run, and watch over limits, signals and stop requests; returns what a limit left undone.

    `room` finds how many workers the trials share; None where they share none.
    """
    from scaletrain.sweep.on_tune import run_trials

    failure: list[BaseException] = []

    def run() -> None:
        try:
            run_trials(sweep, config, section, at_once=at_once)
        except BaseException as error:  # noqa: BLE001 -- handed over to the thread that waits, which raises it
            failure.append(error)

    thread = threading.Thread(target=run, name="sweep", daemon=True)
    began = published = asked_at = counted_at = time.monotonic()
    short_of, has_left = "", False
    progress = Progress(section, at_once=at_once)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=_LOOK_S)
        now = time.monotonic()
        if not has_left and now - asked_at >= _ASK_EVERY_S:
            asked_at = now
            if storage.exists(stop_request):
                stop.set()
        if room is not None and not has_left and now - counted_at >= _COUNT_EVERY_S:
            counted_at = now
            sweep.share_out(room())
        if not has_left:
            short_of = limits.reached(section, dict(sweep.trials), seconds=before_s + now - began, at_once=at_once)
        if (short_of or stop.is_set()) and not has_left:
            if short_of:
                log.warning("%s; all trials are saved and stopped", short_of)
            sweep.leave()
            has_left = True
        progress.tell(dict(sweep.trials))
        if now - published >= _PUBLISH_EVERY_S:
            publish_all()
            published = now
    if failure:
        raise sweep.failure or failure[0]
    return short_of


def _begin_sharing(sweep: Sweep, room: Room, config: Config, at_once: int) -> None:
    sweep.share_out(room)
    fitting = max(1, room.may_come // _fewest_workers(config))
    if fitting < at_once:
        log.info("there is room for %d workers now; trials at once: %d, the others wait", room.may_come, fitting)


class _Preparation:
    """Datasets and models that trials share, each prepared once, in the sweep's own process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rows: dict[str, str] = {}

    def total_steps(self, values: Values) -> int:
        """Prepare what a trial reads, unless another had the same; returns how many steps it has."""
        config = trial_config(self._config, self._config.name, values)
        key = f"{config.model.model_dump_json()} {config.data.model_dump_json()} {config.seed}"
        if key not in self._rows:
            self._rows[key] = prepare(config).dataset_url
        return count_steps(config, load_index(self._rows[key]))


def _may_change(path: str, old: object, new: object) -> bool:
    """Whether a later command may change a field: one that compares no values, or for more trials."""
    if path == "sweep.trials":
        return isinstance(old, int) and isinstance(new, int) and new >= old
    return bool(_MAY_CHANGE.fullmatch(path))


def _forget_trials(layout: SweepLayout) -> bool:
    """Drop all trials where none has made a step, so that another configuration can begin; says whether it could."""
    trials = read_trials(layout)
    runs = [RunLayout(layout.root, stretch.run) for each in trials.values() for stretch in each.stretches]
    if any(each.has_begun for each in trials.values()) or any(checkpoint.latest(run) is not None for run in runs):
        return False
    for run in runs:
        storage.remove(run.config)  # else its run would refuse the new one, too
    storage.remove(layout.trials)
    return True


def _share_workers(config: Config, section: SweepSection) -> bool:
    """Whether trials give workers to one another: each may have more or fewer, and all the same."""
    return _fewest_workers(config) < _most_workers(config) and not any(
        name.split(".")[0] == "scaling" for name in section.parameters
    )


def _at_once(config: Config, section: SweepSection, *, gpus: int | None) -> int:
    """How many trials fit at once; a cluster is asked for more machines, this machine's GPUs are all there are."""
    if gpus is None or ray_cluster.address() is not None:
        return section.at_once
    each = _fewest_workers(config) if _share_workers(config, section) else _most_workers(config)
    fitting = max(1, gpus // each)
    if fitting < section.at_once:
        log.info("this machine's %d GPUs are enough for %d trials at once", gpus, fitting)
    return min(fitting, section.at_once)


def _cpus(config: Config, section: SweepSection) -> int:
    """The logical CPUs of this machine as a cluster: those of all trials' workers, and some for reading."""
    needed = section.at_once * (_most_workers(config) * config.scaling.cpus_per_worker + 1)
    return max(available_cpus(), int(needed) + 1)


def _fewest_workers(config: Config) -> int:
    workers = config.scaling.workers
    return workers.min if isinstance(workers, WorkerRange) else workers


def _most_workers(config: Config) -> int:
    workers = config.scaling.workers
    return workers.max if isinstance(workers, WorkerRange) else workers


def _counts(trials: Mapping[int, TrialRecord]) -> str:
    over = sum(each.is_over for each in trials.values())
    return f"{over} trials are over, {len(trials) - over} are not"

"""The trials on Ray Tune: it keeps as many at work as may be, each driven by an actor beside the sweep's own process.

An actor takes no CPU: the workers of its run ask for their own places, so that the autoscaler sees what all trials need
together. What Tune would decide (which values, who stops, where a lost trial begins again) the sweep decides from its
records; Tune's own state is scratch. The actors stay warm from one trial to the next.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from scaletrain.config import Config
from scaletrain.config_sweep import SweepSection
from scaletrain.log import get_logger, setup_logging
from scaletrain.scratch import scratch_folder
from scaletrain.sweep.state import Sweep
from scaletrain.sweep.trial import Report, TrialWork, configure_storage

_WAIT_S = 0.5
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # a signal asks the trials to save, which Tune's handler does not
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
}

log = get_logger(__name__)


def run_trials(sweep: Sweep, config: Config, section: SweepSection, *, at_once: int) -> None:
    """Run trials until the sweep has no more; must be connected to Ray. Returns when the last one has ended."""
    os.environ.update(_SETTINGS)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with scratch_folder("sweep") as folder:
        trainable = tune.with_resources(
            tune.with_parameters(
                TuneTrial, base=config, section=section, environment=_cluster_environment(), folder=str(Path.cwd())
            ),
            tune.PlacementGroupFactory([{_this_machine(): 0.001}]),
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_Next(sweep),
                scheduler=_Watch(sweep),
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(Path(folder)),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the runs have their own
            ),
        )
        tuner.fit()


class TuneTrial(tune.Trainable):
    """One actor's work: a trial, and after it another."""

    def setup(  # type: ignore[override]  # tune.with_parameters brings the rest
        self, config: dict[str, Any], base: Config, section: SweepSection, environment: Mapping[str, str], folder: str
    ) -> None:
        setup_logging()
        os.environ.update(environment)
        self._base, self._section, self._folder = base, section, folder
        configure_storage(base)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for news of the trial; the last ones say that it is done."""
        report = self._work.look()
        return {"report": report.to_json(), "done": bool(report.outcome)}

    def _begin(self, config: Mapping[str, Any]) -> None:
        os.chdir(self._folder)  # the command's, where relative paths begin; Tune's own is another for each trial
        self._work = TrialWork(self._base, self._section, int(config["number"]))


class _Next(Searcher):
    """Gives Tune the number of the next trial; all else stands in the trial's record."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__()
        self._sweep = sweep
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:  # Tune's own annotation leaves FINISHED out
        number = self._sweep.next_trial()
        while number is None and not self._sweep.at_work:  # Tune would not wait for long without any trial at work
            time.sleep(_WAIT_S)
            number = self._sweep.next_trial()
        if number == "over":
            return str(Searcher.FINISHED)
        if number is None:
            return None
        self._numbers[trial_id] = number
        return {"number": number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial whose actor died has not said how it ended."""
        if error:
            self._sweep.lost(self._numbers[trial_id], "the process that drove it was lost")

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy of everything for a restore that never comes; the sweep has its own records."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records have it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored from Tune's own files."""


class _Watch(FIFOScheduler):
    """Hands the trials' reports to the sweep. Tune never stops a trial itself: that would kill it unsaved."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sweep = sweep

    def __getstate__(self) -> dict[str, Any]:
        """As of the searcher."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._sweep.take(Report.from_json(result["report"]))
        return str(FIFOScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._sweep.take(Report.from_json(result["report"]))


def _this_machine() -> str:
    """The resource that only the machine of this process has."""
    node_id = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    (node,) = (each for each in nodes if each["NodeID"] == node_id)
    return next(str(name) for name in node["Resources"] if name.startswith("node:") and not name.startswith("node:__"))


def _cluster_environment() -> dict[str, str]:
    """What tells a process which cluster it is on: an actor's own environment has not all of it."""
    names = ("RAY_ADDRESS", "DS_ACCELERATOR", "TQDM_DISABLE")
    return {name: os.environ[name] for name in names if name in os.environ}

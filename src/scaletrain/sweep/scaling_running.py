"""Running a scaling study: all is checked, the data is prepared once, then one point after the other is measured.

One at a time, so that none disturbs another. Points that were measured before stay; one that was interrupted is begun
again from nothing, since its first steps would have to settle twice. What fails is written down, and the next follows.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from scaletrain import attempts, devices, ray_cluster, storage
from scaletrain.config import Config
from scaletrain.config_scaling import ScalingStudySection
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import ConfigError, Interrupted, ScaletrainError, StorageError, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.stop_request import StopRequest
from scaletrain.sweep import scaling_points
from scaletrain.sweep.opening import at_work, open_sweep
from scaletrain.sweep.records import SweepLayout
from scaletrain.sweep.scaling_points import Point, check_study, point_config
from scaletrain.sweep.scaling_records import PointRecord, measure, read_points, write_point
from scaletrain.sweep.scaling_report import publish
from scaletrain.sweep.scaling_results import StudyResults
from scaletrain.train import on_ray
from scaletrain.train.trainer import Summary, count_steps, train
from scaletrain.train.worker import available_cpus

_LOOK_S = 0.5
_ASK_EVERY_S = 2.0
_STOPPING = "stopping: the point finishes its step first (once more: stop at once)"
_LONGEST_REASON = 400
_TRY_AGAIN = ("ClusterError",)  # machines that did not come may come another time
# What may differ between two commands that work on one study: what neither a point nor the whole run is changed by.
_MAY_CHANGE = re.compile(
    r"sweep\.(limit\..*|scaling\.(worker_counts|stages|modes|deadline_hours)(\..*)?)|scaling\.(workers|wait_minutes)"
    r"|(storage|evaluate|serve|track|budget|alerts|debug|checkpoint)(\..*)?"
)

log = get_logger(__name__)


@dataclass(frozen=True)
class StudyEnded:
    """How a command that worked on a study ended; `short_of` says which limit left points unmeasured."""

    layout: SweepLayout
    results: StudyResults
    short_of: str


def run_study(config: Config) -> StudyEnded:
    """Measure every point of a scaling study that has not been, until a limit is reached or a signal comes.

    Raises ConfigError with every problem before anything starts, Interrupted after a signal, TrainingError where every
    point failed, and whatever ScaletrainError ends the study as a whole.
    """
    section = check_study(config)
    opened = open_sweep(config, may_change=_may_change, noun="study", parts="points", forget=lambda _: False)
    config, layout = opened.config, opened.layout
    with at_work(opened, num_cpus=_cpus(config, section), stopping=_STOPPING) as stop:
        device = devices.resolve_device(config.train.device, gpus=on_ray.count_gpus())
        devices.check_gpus(config, device)
        if ray_cluster.address() is not None:
            scaling_points.check_cluster(config, section, device=device)
        whole_steps = count_steps(config, load_index(prepare(config).dataset_url))
        study = Study(config, section, whole_steps, stop, attempt=opened.attempt, before_s=opened.before_s)
        study.run()
    results = publish(layout, config, section, study.records)
    left = results.planned - sum(each.state != "running" for each in results.records)
    if stop.asked.is_set() and left:
        raise Interrupted(f"{left} of {results.planned} points are not measured yet; the same command goes on")
    if not results.offers:
        reasons = [f"{each.point}: {each.reason}" for each in results.records if each.state == "failed"]
        raise TrainingError("\n  ".join(["no point could be measured:", *reasons, *filter(None, [study.short_of])]))
    return StudyEnded(layout, results, study.short_of)


class Study:
    """The points of a study while they are measured; `short_of` says which limit was reached.

    `train_run` is the trainer's `train`.
    """

    def __init__(
        self,
        config: Config,
        section: ScalingStudySection,
        whole_steps: int,
        stop: StopRequest,
        *,
        attempt: int,
        before_s: float,
        train_run: Callable[..., Summary] = train,
    ) -> None:
        self._config = config
        self._section = section
        self._whole_steps = whole_steps
        self._train_run = train_run
        self._stop = stop
        self._layout = SweepLayout(config.storage.root, config.name)
        self._stop_url = self._layout.stop_request(attempt)
        self._before_s = before_s
        self._began = self._asked_at = time.monotonic()
        self._newest: Mapping[str, Any] = {}
        self.records = read_points(self._layout)
        self.short_of = ""

    def run(self) -> None:
        """Measure what is not measured yet, in order; ends early where it is asked to, or a limit is reached."""
        points = scaling_points.plan(self._config, self._section)
        for number, point in enumerate(points, start=1):
            known = self.records.get(point)
            if known and (known.state == "measured" or (known.state == "failed" and known.error not in _TRY_AGAIN)):
                continue
            if self._must_end():
                return
            log.info("point %d of %d: %s", number, len(points), point)
            self._measure(point)
            publish(self._layout, self._config, self._section, self.records)

    def _measure(self, point: Point) -> None:
        """Run one point to its end and write down how it was, or why it failed."""
        config = point_config(self._config, self._section, point)
        run, known = RunLayout(config.storage.root, config.name), self.records.get(point)
        self._begin_anew(run, is_known=known is not None)
        batch = self._config.train.global_batch_size
        record = PointRecord(
            point=point,
            run=config.name,
            micro_batch_size=config.train.micro_rows,
            # A weak point sees as many samples in fewer, larger steps.
            whole_steps=-(-self._whole_steps * batch // point.global_batch_size),
            seconds=known.seconds if known else 0.0,
            cost_usd=known.cost_usd if known else None,
        )
        self._keep(record)
        self._newest, began = {}, time.monotonic()
        try:
            self._train(config)
            measured = measure(
                run, settling_steps=self._section.settling_steps, measured_steps=self._section.measured_steps
            )
        except Interrupted:
            log.info("%s: is begun again another time", point)
        except StorageError:
            raise  # no point could be measured without the bucket
        except ScaletrainError as error:
            log.warning("%s: has failed: %s", point, error)
            reason, kind = short_reason(str(error)), type(error).__name__
            record = replace(record, state="failed", reason=reason, error=kind)
        else:
            log.info("%s: %s tokens/s", point, f"{measured.tokens_per_s.median:,.0f}")
            record = replace(record, state="measured", measured=measured)
        seconds = round(record.seconds + time.monotonic() - began, 3)
        self._keep(replace(record, seconds=seconds, cost_usd=self._cost_of(record)))
        self._newest = {}

    def _cost_of(self, record: PointRecord) -> float | None:
        """What a point has cost with the run that is at work on it; None where prices are not known."""
        newest = self._newest.get("cost_usd")
        return record.cost_usd if newest is None else (record.cost_usd or 0.0) + float(newest)

    def _begin_anew(self, run: RunLayout, *, is_known: bool) -> None:
        """Remove what an interrupted or failed try of this study left; a run that is not the study's is none of it."""
        if not storage.exists(run.config):
            return
        if not is_known:
            raise ConfigError(f"name: there is a run {run.name} already, which is not this study's; use another name")
        attempts.refuse_a_second(run)
        storage.remove(run.url)

    def _train(self, config: Config) -> None:
        """Train in a thread of its own, and meanwhile see whether the study has to end; raises what ended the run."""
        failure: list[BaseException] = []
        ending = threading.Event()

        def run() -> None:
            try:
                self._train_run(config, local=False, stop=ending, on_lines=self._take)
            except BaseException as error:  # noqa: BLE001 -- handed over to the thread that waits, which raises it
                failure.append(error)

        thread = threading.Thread(target=run, name="point", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(timeout=_LOOK_S)
            if not ending.is_set() and self._must_end():
                ending.set()
        if failure:
            raise failure[0]

    def _take(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._newest = orjson.loads(lines[-1])

    def _must_end(self) -> bool:
        """Whether a signal came, somebody asked through the bucket, or a limit is reached."""
        now = time.monotonic()
        if now - self._asked_at >= _ASK_EVERY_S:
            self._asked_at = now
            if storage.exists(self._stop_url):
                self._stop.asked.set()
        if not self.short_of:
            self.short_of = self._limit_reached(self._before_s + now - self._began)
            if self.short_of:
                log.warning("%s", self.short_of)
        return self._stop.asked.is_set() or bool(self.short_of)

    def _limit_reached(self, seconds: float) -> str:
        assert self._config.sweep is not None
        limit = self._config.sweep.limit
        if limit.hours is not None and seconds >= 3600 * limit.hours:
            return f"sweep.limit.hours={limit.hours:g} is reached; with a higher one the same command goes on"
        if limit.usd is None:
            return ""
        if self._newest and self._newest.get("cost_usd") is None:
            return "sweep.limit.usd: what these machines cost is not known, so it cannot be kept; set sweep.limit.hours"
        spent = sum(each.cost_usd or 0.0 for each in self.records.values())
        if spent + (self._newest.get("cost_usd") or 0.0) >= limit.usd:
            return f"sweep.limit.usd={limit.usd:g} is reached; with a higher one the same command goes on"
        return ""

    def _keep(self, record: PointRecord) -> None:
        """Write a record, then believe it."""
        write_point(self._layout, record)
        self.records[record.point] = record


def short_reason(message: str) -> str:
    """What an error says in one line: of a traceback the last one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no reason was given"]
    text = lines[-1] if any(line.startswith("Traceback") for line in lines) else " ".join(lines)
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def _may_change(path: str, _old: object, _new: object) -> bool:
    """Whether a later command may change a field: one that leaves what a point measures the same."""
    return bool(_MAY_CHANGE.fullmatch(path))


def _cpus(config: Config, section: ScalingStudySection) -> int:
    """The logical CPUs of this machine as a cluster: those of the largest point's workers, and one for reading."""
    return max(available_cpus(), int(max(section.worker_counts) * config.scaling.cpus_per_worker) + 2)

"""The points of a scaling study: which there are, what each one's run is, and that all of them can be run.

A point is a number of workers, a ZeRO stage and a global batch. In the strong mode the batch is the configuration's own
everywhere; in the weak mode it grows with the workers, from the smallest number on, whose point both modes share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from scaletrain import ray_autoscaler, ray_cluster
from scaletrain.config import Config, WorkerRange
from scaletrain.config_scaling import Mode, ScalingStudySection
from scaletrain.devices import count_local_gpus
from scaletrain.errors import ClusterError, ConfigError
from scaletrain.ray_waiting import Demand, cluster_resources, find_candidates, shown
from scaletrain.sweep.checking import trial_config
from scaletrain.train.worker import available_cpus

_LONGEST_NAME = 100  # of a run


@dataclass(frozen=True, order=True)
class Point:
    """What is measured at once; sorts by the number of workers first."""

    workers: int
    stage: int
    global_batch_size: int

    @property
    def label(self) -> str:
        """As it stands in names of runs and files."""
        return f"{self.workers}-workers-stage-{self.stage}-batch-{self.global_batch_size}"

    def __str__(self) -> str:
        return f"{counted(self.workers)}, stage {self.stage}, global batch {self.global_batch_size}"


def counted(workers: int) -> str:
    """As "1 worker" or "4 workers"."""
    return f"{workers} worker" if workers == 1 else f"{workers} workers"


def plan(config: Config, section: ScalingStudySection) -> list[Point]:
    """Every point once, from the most workers to the fewest.

    In this order a cluster that autoscales shrinks as the study goes, so no machine is started twice or held in vain.
    """
    found = {point for points in series(config, section).values() for point in points}
    return sorted(found, key=lambda point: (-point.workers, point.stage, point.global_batch_size))


def series(config: Config, section: ScalingStudySection) -> dict[tuple[Mode, int], tuple[Point, ...]]:
    """What belongs on one curve, by mode and stage, from the fewest workers to the most."""
    counts = sorted(section.worker_counts)
    batch = config.train.global_batch_size
    return {
        (mode, stage): tuple(
            Point(workers, stage, batch if mode == "strong" else int(_weak_batch(batch, workers, counts)))
            for workers in counts
        )
        for mode in section.modes
        for stage in section.stages or (config.zero.stage,)
    }


def run_name(study: str, point: Point) -> str:
    """The name of a point's run."""
    return f"{study}.{point.label}"


def point_config(config: Config, section: ScalingStudySection, point: Point) -> Config:
    """The configuration of a point's run: short, and without what would disturb it; raises ConfigError."""
    steps = section.settling_steps + section.measured_steps
    values: dict[str, Any] = {
        **_placed(config, point),
        "train.steps": steps,
        "train.epochs": None,
        "train.evaluate_every_steps": 0,
        "checkpoint.every_steps": steps,  # the last step is saved, as of every run, and no other one
        "debug": {},
    }
    return trial_config(config, run_name(config.name, point), values)


def whole_config(config: Config, point: Point, *, steps: int) -> Config:
    """The configuration of the whole run with a point's workers and stage; `steps` counts at the point's batch."""
    values = _placed(config, point)
    if point.global_batch_size != config.train.global_batch_size:
        values |= {"train.steps": steps, "train.epochs": None}
    return trial_config(config, f"{config.name}.best", values)


def check_study(config: Config) -> ScalingStudySection:
    """The section `sweep.scaling` of a configuration that can be studied; raises ConfigError with every problem."""
    section = config.sweep.scaling if config.sweep is not None else None
    if section is None:
        raise ConfigError(
            "sweep: is no scaling study; give sweep: {kind: scaling, scaling: {worker_counts: [1, 2, 4]}}"
        )
    problems = [*_rule_problems(config, section)]
    if ray_cluster.address() is None:
        gpus = 0 if config.train.device == "cpu" or config.scaling.gpus_per_worker == 0 else count_local_gpus()
        problems += machine_problems(config, section, cpus=available_cpus(), gpus=gpus)
    if problems:
        raise ConfigError(problems)
    return section


def machine_problems(config: Config, section: ScalingStudySection, *, cpus: int, gpus: int) -> Iterator[str]:
    """Numbers of workers that this machine is too small for, where it is all there is.

    Training itself would crowd its cores, but what is measured so says nothing of how training scales.
    """
    each = config.scaling.cpus_per_worker
    most = int(cpus / each + 1e-9)
    too_many = [count for count in section.worker_counts if count > (min(most, gpus) if gpus else most)]
    if not too_many:
        return
    if gpus and min(too_many) > gpus:
        has, use = f"{gpus} GPUs", f"at most {gpus}"
    else:
        has = f"{cpus} cores, and each worker takes scaling.cpus_per_worker={each:g}"
        use = f"at most {most}, or fewer CPUs for each"
    yield (
        f"sweep.scaling.worker_counts: got {_listed(too_many)}, but this machine has {has}; use {use}, or a cluster "
        "(`scaletrain submit`)"
    )


def check_cluster(config: Config, section: ScalingStudySection, *, device: str) -> None:
    """Raise ConfigError for numbers of workers that the cluster does not have and never brings; needs Ray."""
    bundle = {"CPU": config.scaling.cpus_per_worker}
    if device == "cuda":
        bundle["GPU"] = config.scaling.gpus_per_worker or 1
    problems = []
    for count in sorted(section.worker_counts):
        try:
            find_candidates(
                Demand(
                    bundle=bundle,
                    least=count,
                    most=count,
                    noun="workers",
                    needed=f"the {count} workers of a point",
                    alternative="leave that number out of sweep.scaling.worker_counts",
                )
            )
        except ClusterError as error:
            problems.append(f"sweep.scaling.worker_counts: {error}")
            continue
        room = ray_autoscaler.whole_bundles(cluster_resources(), bundle)
        if count > room and not ray_autoscaler.machine_types():
            problems.append(
                f"sweep.scaling.worker_counts: got {count}, but the cluster has room for {room} workers of "
                f"{shown(bundle)} each, and no autoscaler; use at most {room}, or add machines"
            )
    if problems:
        raise ConfigError(problems)


def _rule_problems(config: Config, section: ScalingStudySection) -> Iterator[str]:
    if isinstance(config.scaling.workers, WorkerRange):
        yield (
            "scaling.workers: got a range, but each point has one number of workers, of sweep.scaling.worker_counts; "
            "remove it"
        )
    batch, counts = config.train.global_batch_size, sorted(section.worker_counts)
    broken = [n for n in counts if "weak" in section.modes and _weak_batch(batch, n, counts).denominator != 1]
    if broken:
        yield (
            f"sweep.scaling.worker_counts: weak scaling from {counts[0]} workers and train.global_batch_size={batch} "
            f"would need a part of a row at {_listed(broken)} workers; use multiples of {counts[0]}"
        )
        return
    points = plan(config, section)
    longest = max(points, key=lambda point: len(point.label))
    if len(run_name(config.name, longest)) > _LONGEST_NAME:
        most = _LONGEST_NAME - len(longest.label) - 1
        yield f"name: has {len(config.name)} characters; use at most {most}, since the points' runs add to it"
    found: dict[str, list[Point]] = {}
    for point in points:
        for problem in _point_problems(config, section, point):
            found.setdefault(problem, []).append(point)
    for problem, where in found.items():
        yield problem if len(where) == len(points) else f"{problem} ({'; '.join(map(str, where))})"


def _point_problems(config: Config, section: ScalingStudySection, point: Point) -> Iterator[str]:
    try:
        point_config(config.model_copy(update={"name": "study"}), section, point)
    except ConfigError as error:
        yield from error.problems
        return
    if config.train.micro_batch_size == "auto":
        yield "train.micro_batch_size: got auto; give a number, which all points then share"
        return
    if config.model.gradient_checkpointing == "auto":
        yield "model.gradient_checkpointing: got auto; give a value, which all points then share"
    micro_batches = point.global_batch_size // config.train.micro_batch_size
    if point.workers > micro_batches:
        yield (
            f"sweep.scaling.worker_counts: got {point.workers}, but a step has {micro_batches} micro batches, so some "
            f"workers would have nothing to do; use at most {micro_batches}, lower "
            f"train.micro_batch_size={config.train.micro_batch_size}, or raise train.global_batch_size"
        )


def _placed(config: Config, point: Point) -> dict[str, Any]:
    return {
        "scaling.workers": point.workers,
        "zero.stage": point.stage,
        "train.global_batch_size": point.global_batch_size,
        "train.micro_batch_size": config.train.micro_batch_size,
    }


def _weak_batch(batch: int, workers: int, counts: Sequence[int]) -> Fraction:
    return Fraction(batch * workers, counts[0])


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, sorted(numbers))
    return f"{', '.join(first)} and {last}" if first else last

"""A trial at work: its run in a thread, what it reports, and the orders that it takes from its record.

The run is an ordinary one, by the trainer's own door. An order (stop, leave, go on as a clone) makes it finish its
step, save and end, as Ctrl-C does; nothing is killed. How many workers it may have stands in the record too.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import orjson

from scaletrain import policy, storage
from scaletrain.config import Config
from scaletrain.config_sweep import Metric, SweepSection
from scaletrain.errors import Interrupted, ScaletrainError, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.sweep.checking import trial_config
from scaletrain.sweep.clone import clone_run
from scaletrain.sweep.records import Facts, Order, Stretch, SweepLayout, read_trial
from scaletrain.train.trainer import Summary, train

Outcome = Literal["", "finished", "interrupted", "failed"]
_LOOK_S = 2.0

log = get_logger(__name__)


@dataclass(frozen=True)
class Report:
    """News of a trial; `outcome` is "" while it goes on.

    `cloned` is the run that it is from now on, `declined` says that there was nothing yet to clone, `is_silent` that it
    seems to wait for machines again. `error` names the kind of error that `reason` tells of.
    """

    number: int
    points: Mapping[int, float]
    facts: Facts
    outcome: Outcome = ""
    reason: str = ""
    error: str = ""
    cloned: Stretch | None = None
    declined: bool = False
    is_silent: bool = False

    def to_json(self) -> str:
        """As text, which any messenger carries unchanged."""
        return orjson.dumps(asdict(self), option=orjson.OPT_NON_STR_KEYS).decode()

    @classmethod
    def from_json(cls, text: str) -> "Report":
        raw: dict[str, Any] = orjson.loads(text)
        return cls(
            **{
                **raw,
                "points": {int(step): value for step, value in raw["points"].items()},
                "facts": Facts(**raw["facts"]),
                "cloned": Stretch(**raw["cloned"]) if raw["cloned"] else None,
            }
        )


class Meter:
    """Makes points of a curve of lines of metrics: each validation loss, or the mean over every so many steps.

    That of tokens_per_s is all their tokens over all their seconds: a mean of rates hardly feels the slow steps.
    """

    def __init__(self, metric: Metric, *, every_steps: int, total_steps: int) -> None:
        self._metric = metric
        self._every_steps = every_steps
        self._total_steps = total_steps
        self._values: dict[int, tuple[float, float]] = {}  # what is added up, and by how much that is divided

    def add(self, line: Mapping[str, Any]) -> dict[int, float]:
        """Take in a step's line; returns the point that ends with it, if one does."""
        value, step = line.get(self._metric), int(line["step"])
        if self._metric == "validation_loss":
            return {} if value is None or not math.isfinite(value) else {step: float(value)}
        if value is not None:
            is_rate = self._metric == "tokens_per_s"
            self._values[step] = (float(line["tokens"]), float(line["step_s"])) if is_rate else (float(value), 1.0)
        if step % self._every_steps and step != self._total_steps:
            return {}
        first = (step - 1) // self._every_steps * self._every_steps
        recent = [each for at, each in self._values.items() if first < at <= step]
        self._values = {}
        return {step: sum(each for each, _ in recent) / sum(by for _, by in recent)} if recent else {}


class TrialWork:
    """One trial in this process, from its newest commit to its end; `train_run` is the trainer's `train`."""

    def __init__(
        self, config: Config, section: SweepSection, number: int, *, train_run: Callable[..., Summary] = train
    ) -> None:
        self._config = config
        self._section = section
        self._number = number
        self._train = train_run
        self._layout = SweepLayout(config.storage.root, config.name)
        record = read_trial(self._layout, number)
        self._stretch = record.stretches[-1]
        self._facts = record.facts
        self._next: Stretch | None = None
        self._declined: Stretch | None = None
        self._order: Order = ""
        self._most_workers = record.most_workers
        self._workers_told, self._stepped_at = 0, 0.0
        self._stop, self._is_over = threading.Event(), threading.Event()
        self._reports: queue.Queue[Report] = queue.Queue()
        self._take_order()
        threading.Thread(target=self._work, name=f"trial-{number}", daemon=True).start()
        threading.Thread(target=self._watch_orders, name=f"trial-{number}-orders", daemon=True).start()

    def look(self) -> Report:
        """Wait for news and return it; the last one has an outcome."""
        return self._reports.get()

    def _watch_orders(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            self._take_order()
            silent_s = time.monotonic() - self._stepped_at
            if self._workers_told and policy.lacks_machines(silent_s, step_s=self._facts.step_s):
                self._workers_told = 0
                self._reports.put(Report(self._number, {}, self._facts, is_silent=True))

    def _take_order(self) -> None:
        """See what the record asks for, and how many workers it grants."""
        try:
            record = read_trial(self._layout, self._number)
        except ScaletrainError as error:
            log.warning("cannot look for orders: %s", error)
            return
        self._most_workers = record.most_workers
        if record.order == "clone" and (
            record.next is None or record.next.run == self._stretch.run or record.next == self._declined
        ):
            return  # that was done, or could not be
        self._order, self._next = record.order, record.next
        if self._order:
            self._stop.set()

    def _work(self) -> None:
        while True:
            ended = self._train_to_its_end()
            if self._order != "clone" or ended.outcome == "finished":
                self._put_last(ended)
                return
            try:
                self._reports.put(self._go_on_as_clone())
            except Exception as error:  # noqa: BLE001 -- told, as any other end of the trial
                self._put_last(self._failed(error))
                return

    def _put_last(self, report: Report) -> None:
        self._is_over.set()
        self._reports.put(report)

    def _train_to_its_end(self) -> Report:
        stretch, facts = self._stretch, self._facts
        every = self._section.every_steps or math.ceil(facts.total_steps / 20)
        meter = Meter(self._section.metric, every_steps=every, total_steps=facts.total_steps)
        self._workers_told = 0

        def on_lines(lines: Sequence[bytes]) -> None:
            points: dict[int, float] = {}
            for line in lines:
                metrics = orjson.loads(line)
                points |= meter.add(metrics)
                self._facts = replace(self._facts, **_facts_of(metrics))
            self._stepped_at = time.monotonic()
            if points or self._facts.world_size != self._workers_told:
                self._workers_told = self._facts.world_size
                self._reports.put(Report(self._number, points, self._facts))

        try:
            if self._stop.is_set():
                raise Interrupted("asked to stop before it began")
            config = trial_config(self._config, stretch.run, stretch.parameters)
            self._train(
                config, local=False, stop=self._stop, on_lines=on_lines, most_workers=lambda: self._most_workers
            )
        except Interrupted:
            return Report(self._number, {}, self._facts, outcome="interrupted")
        except Exception as error:  # noqa: BLE001 -- a trial that fails must not end the others
            return self._failed(error)
        return Report(self._number, {}, self._facts, outcome="finished")

    def _go_on_as_clone(self) -> Report:
        """Become the clone that is ordered, where the donor has a commit to begin with."""
        wanted = self._next
        assert wanted is not None
        config = trial_config(self._config, wanted.run, wanted.parameters)
        root = self._config.storage.root
        made = clone_run(RunLayout(root, wanted.donor), RunLayout(root, wanted.run), config, step=wanted.step)
        if made is not None:
            self._stretch = replace(wanted, step=made.step, manifest_hash=made.manifest_hash)
            self._facts = replace(self._facts, step=made.step, cost_usd=made.cost_usd)
        self._declined = wanted if made is None else None
        self._order, self._next = "", None
        self._stop.clear()
        if made is None:
            return Report(self._number, {}, self._facts, declined=True, reason=f"{wanted.donor} has no commit yet")
        return Report(self._number, {}, self._facts, cloned=self._stretch)

    def _failed(self, error: Exception) -> Report:
        """Tell whatever it was; what no user could have caused goes into the log whole."""
        if not isinstance(error, ScaletrainError):
            log.error("trial %d failed", self._number, exc_info=error)
            error = TrainingError(f"{type(error).__name__}: {error}")
        reason, kind = str(error), type(error).__name__
        return Report(self._number, {}, self._facts, outcome="failed", reason=reason, error=kind)


def configure_storage(config: Config) -> None:
    """Reach the bucket from a process that has only been given the configuration."""
    storage.configure(config.storage.root, config.storage.options)


def _facts_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    names = ("step", "step_s", "tokens_per_s", "world_size", "cost_usd")
    return {name: metrics[name] for name in names if metrics.get(name) is not None}

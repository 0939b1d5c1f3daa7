"""A line now and then that says how far a sweep's trials are, and for how long they may still take."""

import time
from collections.abc import Callable, Mapping

from scaletrain.config_sweep import SweepSection
from scaletrain.goodput import readable
from scaletrain.log import get_logger
from scaletrain.sweep import space
from scaletrain.sweep.limits import rest_s
from scaletrain.sweep.records import TrialRecord

_EVERY_S = 30.0
_TRIALS_SHOWN = 4

log = get_logger(__name__)


class Progress:
    """Tells where trials have come further, and not too often."""

    def __init__(self, section: SweepSection, *, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._section = section
        self._at_once = at_once
        self._clock = clock
        self._told_at = clock()
        self._steps: list[int] = []

    def tell(self, trials: Mapping[int, TrialRecord]) -> None:
        """Log a line, if it is time for one and there is anything new."""
        steps = [each.facts.step for each in trials.values()]
        if self._clock() - self._told_at < _EVERY_S or steps == self._steps:
            return
        self._told_at, self._steps = self._clock(), steps
        log.info("%s", progress_told(self._section, trials, at_once=self._at_once))


def progress_told(section: SweepSection, trials: Mapping[int, TrialRecord], *, at_once: int) -> str:
    """How many trials are over, where those at work are, and how long all may take at the pace so far."""
    over = sum(each.is_over for each in trials.values())
    running = [each for each in trials.values() if each.state == "running"]
    parts = [f"{over} of {space.number_of_trials(section)} trials are over"]
    parts += [_one(each, section.metric) for each in running[:_TRIALS_SHOWN]]
    if len(running) > _TRIALS_SHOWN:
        parts.append(f"{len(running) - _TRIALS_SHOWN} more at work")
    left_s = rest_s(section, trials) / at_once
    if left_s:
        parts.append(f"at most {readable(left_s) or f'{left_s:.0f} s'} left")
    return "; ".join(parts)


def _one(record: TrialRecord, metric: str) -> str:
    if not record.facts.step:
        return f"trial {record.number} starts"
    value = "" if record.value is None else f", {metric} {record.value:.4g}"
    return f"trial {record.number} at step {record.facts.step} of {record.facts.total_steps}{value}"

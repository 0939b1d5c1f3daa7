"""The live view of a run: a progress bar with time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from scaletrain.log import console

_PLAIN_LINE_EVERY_S = 10.0


class Display:
    """Shows lines of metrics as they come; `total_steps` is where the run will end."""

    def __init__(self, *, name: str, total_steps: int, first_step: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = console()
        self._is_terminal = sys.stderr.isatty()
        self._total_steps = total_steps
        self._last_plain_line_s = -_PLAIN_LINE_EVERY_S
        self._progress = Progress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._is_terminal,
        )
        self._task = self._progress.add_task("", total=total_steps, completed=first_step, status="starting")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, lines: Sequence[bytes]) -> None:
        """Show new lines of metrics (JSON), oldest first."""
        for line in lines:
            metrics = orjson.loads(line)
            self._progress.update(self._task, completed=metrics["step"], status=_status(metrics))
            now = time.monotonic()
            is_due = now - self._last_plain_line_s >= _PLAIN_LINE_EVERY_S or metrics["step"] == self._total_steps
            if not self._is_terminal and is_due:
                self._last_plain_line_s = now
                self._console.print(f"step {metrics['step']}/{self._total_steps}  {_status(metrics)}")
            if self._is_terminal and "validation_loss" in metrics:
                self._progress.console.print(f"step {metrics['step']}  {_status(metrics)}")


def _status(metrics: dict[str, Any]) -> str:
    parts = [
        "skipped" if metrics["loss"] is None else f"loss {metrics['loss']:.4f}",
        *([f"right {metrics['pair_accuracy']:.1%}"] if metrics.get("pair_accuracy") is not None else []),
        f"lr {metrics['learning_rate']:.2e}",
        f"{metrics['tokens_per_s']:,.0f} tokens/s",
    ]
    if metrics.get("mfu") is not None:
        parts.append(f"MFU {metrics['mfu']:.1%}")
    if metrics.get("cost_usd") is not None:
        parts.append(f"{metrics['cost_usd']:,.2f} USD")
    if "validation_perplexity" in metrics:
        parts.append(f"validation perplexity {metrics['validation_perplexity']:.2f}")
    if metrics.get("validation_pair_accuracy") is not None:
        parts.append(
            f"validation loss {metrics['validation_loss']:.4f}, right {metrics['validation_pair_accuracy']:.1%}"
        )
    return "  ".join(parts)

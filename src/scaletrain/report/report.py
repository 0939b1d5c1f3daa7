"""runs/<name>/report.html: one or several runs as a page that needs nothing else: no network, and one small script.

What strangers wrote is escaped. Everything can be read without the script, which only shows values under the pointer.
"""

from collections.abc import Sequence

from scaletrain import storage
from scaletrain.errors import ConfigError
from scaletrain.layout import RunLayout
from scaletrain.page import page
from scaletrain.page.lines import MOST_RUNS
from scaletrain.report import sections
from scaletrain.report.evaluations import Evaluated, read_evaluations
from scaletrain.run_history import History, read_history
from scaletrain.storage.parallel import in_parallel

REPORT = "report.html"
_RUNS_AT_ONCE = 4


def write_report(runs: Sequence[RunLayout], *, out: str | None) -> str:
    """Write the page of some runs and return its URL; by default beside the run, and of several runs where this runs.

    Raises ConfigError with every run that is named twice, or where there are too many to tell apart.
    """
    check_runs(runs)
    if out is None:
        out = storage.join(runs[0].url, REPORT) if len(runs) == 1 else REPORT
    histories = in_parallel(read_history, runs, max_workers=_RUNS_AT_ONCE)
    evaluated = in_parallel(read_evaluations, runs, max_workers=_RUNS_AT_ONCE)
    storage.write_bytes(out, report_html(histories, evaluated))
    return out


def check_runs(runs: Sequence[RunLayout]) -> None:
    """Raise ConfigError with every reason why these runs cannot be in one page."""
    problems = [f"{run.url} is named twice; name it once" for run in dict.fromkeys(runs) if runs.count(run) > 1]
    if len(runs) > MOST_RUNS:
        problems.append(f"{len(runs)} runs in one page cannot be told apart; give {MOST_RUNS} at most")
    if problems:
        raise ConfigError(problems)


def report_html(histories: Sequence[History], evaluated: Sequence[Evaluated]) -> bytes:
    """The page of some runs, with what was evaluated of each."""
    parts = (
        sections.head(histories),
        sections.switches(histories),
        sections.learning(histories, evaluated),
        sections.times(histories),
        sections.events(histories),
        sections.speed(histories),
        sections.evaluations(histories, evaluated),
        sections.answers(histories, evaluated),
        sections.configurations(histories),
    )
    footer = "Written by <code>scaletrain report</code>; <code>scaletrain show RUN --json</code> has the same numbers."
    names = ", ".join(history.summary.name for history in histories)
    return page(f"report of {names}", parts, footer=footer, charts=True)

"""`scaletrain sweep`: many runs of one configuration, and what they have found."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from scaletrain.command import ConfigFile, Json, Overrides, Root, examples, load_config_file, print_result, reported

if TYPE_CHECKING:
    from scaletrain.sweep.results import Results


class _RunByDefault(TyperGroup):
    """Lets `sweep CONFIG` stand for `sweep run CONFIG`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Run many trials of one configuration: `sweep CONFIG`.\n\n"
    "Without a command it runs them, as `sweep run` does: options are told there. `sweep show NAME` tells what they "
    "have found.",
    epilog=examples("scaletrain sweep launch/configs/sweep.yaml", "scaletrain sweep show launch/configs/sweep.yaml"),
    rich_markup_mode=None,
)


@app.command(
    "run",
    epilog=examples(
        "scaletrain sweep launch/configs/sweep.yaml sweep.trials=4",
        "scaletrain sweep run.yaml 'sweep={kind: scaling, scaling: {worker_counts: [1, 2, 4]}}'",
    ),
)
@reported
def run(config: ConfigFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Run the trials of a configuration's section `sweep`.

    Each trial is an ordinary run, NAME.0000 and so on. Everything is checked first. Ctrl-C saves all trials; the same
    command goes on from there, after a lost machine too. The results lie in ROOT/sweeps/NAME: report.html, results.md,
    and best.yaml, which `scaletrain train` takes.

    With `kind: scaling` it measures how training scales instead, one number of workers and ZeRO stage after the other.
    """
    from scaletrain.sweep.results import results_table
    from scaletrain.sweep.running import run_sweep

    loaded = load_config_file(config, overrides)
    if loaded.sweep is not None and loaded.sweep.kind == "scaling":
        _run_study(loaded, as_json=as_json)
        return
    ended = run_sweep(loaded)
    results = ended.results
    record = {**results.record(), "short_of": ended.short_of, "url": ended.layout.url}
    print_result(record, as_json=as_json, display=lambda: results_table(results))
    if not as_json:
        _tell_of_machines(results)
        _tell(ended.layout.url, best=results.best, short_of=ended.short_of)


@app.command("show", epilog=examples("scaletrain sweep show sweep --root quickstart"))
@reported
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a sweep's name, or its CONFIG file")],
    root: Root = "bucket",
    as_json: Json = False,
) -> None:
    """Show what a sweep has found so far, from the bucket alone."""
    from scaletrain import storage
    from scaletrain.command import is_config_file
    from scaletrain.config_file import load_config
    from scaletrain.errors import NotFoundError
    from scaletrain.sweep.machines import read_watched
    from scaletrain.sweep.machines_account import account_of
    from scaletrain.sweep.records import SweepLayout, read_trials
    from scaletrain.sweep.results import results_of, results_table

    if is_config_file(name):
        loaded = load_config_file(name, None)
        storage.configure(loaded.storage.root, loaded.storage.options)
        root, name = loaded.storage.root, loaded.name
    layout = SweepLayout(root, name)
    if not storage.exists(layout.config):
        raise NotFoundError(f"there is no sweep at {layout.url}; give its name and --root, or its configuration file")
    config = load_config(layout.config)
    assert config.sweep is not None
    if config.sweep.scaling is not None:
        _show_study(config, layout, as_json=as_json)
        return
    results = replace(results_of(config, config.sweep, read_trials(layout)), machines=account_of(read_watched(layout)))
    print_result({**results.record(), "url": layout.url}, as_json=as_json, display=lambda: results_table(results))
    if not as_json:
        _tell_of_machines(results)
        _tell(layout.url, best=results.best, short_of="")


def _tell_of_machines(results: "Results") -> None:
    import sys

    if (account := results.machines) is not None:
        cost = "" if account.usd is None else f", {account.usd:,.2f} USD with the head's"
        print(
            f"machines: {account.most} at most, {account.unused:.0%} of their time not at work{cost}", file=sys.stderr
        )


def _tell(url: str, *, best: int | None, short_of: str) -> None:
    import sys

    if short_of:
        print(short_of, file=sys.stderr)
    print(f"the whole of it: {url}/report.html", file=sys.stderr)
    if best is not None:
        print(f"train with the best values: scaletrain train {url}/best.yaml", file=sys.stderr)


def _run_study(config: Any, *, as_json: bool) -> None:
    """Measure how training scales; see docs/scaling.md."""
    from scaletrain.sweep.scaling_running import run_study
    from scaletrain.sweep.scaling_tables import study_table

    ended = run_study(config)
    record = {**ended.results.record(), "short_of": ended.short_of, "url": ended.layout.url}
    print_result(record, as_json=as_json, display=lambda: study_table(ended.results))
    if not as_json:
        best = ended.results.best
        _tell(ended.layout.url, best=best.point.workers if best else None, short_of=ended.short_of)


def _show_study(config: Any, layout: Any, *, as_json: bool) -> None:
    from scaletrain.sweep.scaling_records import read_points
    from scaletrain.sweep.scaling_results import results_of
    from scaletrain.sweep.scaling_tables import study_table

    results = results_of(config, config.sweep.scaling, read_points(layout))
    record = {**results.record(), "url": layout.url}
    print_result(record, as_json=as_json, display=lambda: study_table(results))
    if not as_json:
        _tell(layout.url, best=results.best.point.workers if results.best else None, short_of="")

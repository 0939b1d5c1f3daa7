"""`scaletrain runs` and `show`: the runs below a storage root, one of them, and a run's way to another bucket."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scaletrain.command import Json, Root, RunName, examples, find_run_of, print_result, reported


class _ListByDefault(TyperGroup):
    """Lets `runs ROOT` stand for `runs list ROOT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="List the runs below a storage root: `runs [ROOT]`.\n\n"
    "Without a command it lists, as `runs list` does: options are told there. `runs copy FROM TO` copies one.",
    epilog=examples("scaletrain runs", "scaletrain runs s3://my-bucket/scaletrain --sort loss"),
    rich_markup_mode=None,
)

show_app = typer.Typer(rich_markup_mode=None)


@app.command(
    "list",
    epilog=examples(
        "scaletrain runs s3://my-bucket/scaletrain --where finished --where 'loss<2' --sort loss",
        "scaletrain runs bucket --where 'small-*' --where zero.stage=2 --sort -train.learning_rate",
    ),
)
@reported
def list_runs(
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="the storage root, as s3://my-bucket/scaletrain")
    ] = "bucket",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="CONDITION", help="only runs that are so; may be given several times"),
    ] = None,
    sort: Annotated[
        list[str] | None, typer.Option("--sort", metavar="FIELD", help="by a field; -FIELD begins with the largest")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="how many to show")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="tokens and goodput of long runs too, from all of their metrics")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the runs below a storage root: how far, loss, speed, cost.

    A condition is a status, a name with * in it, or a comparison. Its fields are those of --json, and those of the
    configuration.
    """
    from scaletrain import run_display
    from scaletrain.run_filter import parse_selection
    from scaletrain.run_summary import list_summaries

    selection = parse_selection(where or (), sort or (), limit)
    runs = list_summaries(root, full=full or selection.takes_every_line)
    shown = selection.of(runs)
    print_result(
        [run.record() for run in shown],
        as_json=as_json,
        display=lambda: run_display.runs_table(shown, hidden=len(runs) - len(shown), root=root),
    )


@app.command(
    "copy", epilog=examples("scaletrain runs copy s3://my-bucket/scaletrain/runs/my-run gs://my-other/scaletrain")
)
@reported
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="a run's URL, as s3://my-bucket/scaletrain/runs/mine")],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="its new URL, or the new storage root, as gs://my-other/scaletrain")
    ],
    as_json: Json = False,
) -> None:
    """Copy a run with its dataset and model to another bucket.

    Or to another cloud, or a folder, where it goes on as if nothing had happened. Every file is compared with its
    checksum on the way. An interrupted copy is finished by the same command.
    """
    from scaletrain.layout import RunLayout
    from scaletrain.run_copy import copy_run
    from scaletrain.runs import find_run

    run = find_run(source, root="bucket")
    there = find_run(target, root="bucket") if "/runs/" in f"{target}/" else RunLayout(target.rstrip("/"), run.name)
    found = copy_run(run, there)
    lines = (
        f"{found.url} is at step {found.step}: {found.files} files, {found.size_bytes / 1e6:,.1f} MB, "
        f"{found.found} of them there before\n"
        f"prove it with `scaletrain verify {found.url}`; go on with `scaletrain train {there.config}`"
    )
    print_result(found.record(), as_json=as_json, display=lambda: lines)


@show_app.command(epilog=examples("scaletrain show my-run --root s3://my-bucket/scaletrain"))
@reported
def show(run: RunName, root: Root = "bucket", as_json: Json = False) -> None:
    """Show one run: how far it is, its loss, faults, cost and time.

    Also how long it still takes, and its checkpoints.
    """
    from scaletrain.run_display import run_display
    from scaletrain.run_history import read_history
    from scaletrain.runs import read_run

    layout = find_run_of(run, root)
    found, history = read_run(layout), read_history(layout)
    record = {**history.record(), **found.record()}
    print_result(record, as_json=as_json, display=lambda: run_display(found, history))

"""`scaletrain runs`: the runs below a storage root, and a run's way to another one."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scaletrain.command import Json, print_result, reported


class _ListByDefault(TyperGroup):
    """Lets `runs ROOT` stand for `runs list ROOT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="List the runs below a storage root: `runs [ROOT]`. Copy one to another bucket: `runs copy FROM TO`.",
    rich_markup_mode=None,
)


@app.command("list")
@reported
def list_runs(
    root: Annotated[
        str, typer.Argument(metavar="[ROOT]", help="the storage root, as s3://my-bucket/scaletrain")
    ] = "bucket",
    as_json: Json = False,
) -> None:
    """List the runs below a storage root, with their newest committed step."""
    from scaletrain import runs

    found = runs.list_runs(root)
    print_result([run.record() for run in found], as_json=as_json, display=lambda: runs.runs_table(found))


@app.command("copy")
@reported
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="a run's URL, as s3://my-bucket/scaletrain/runs/mine")],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="its new URL, or the new storage root, as gs://my-other/scaletrain")
    ],
    as_json: Json = False,
) -> None:
    """Copy a run with its dataset and model to another bucket or cloud, where it goes on as if nothing had happened.

    Every file is compared with its checksum on the way. An interrupted copy is finished by the same command.
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

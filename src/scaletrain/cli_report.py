"""`scaletrain report`: one or several runs as a page to look at."""

from typing import Annotated

import typer

from scaletrain.command import Root, examples, find_run_of, reported

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=examples("scaletrain report my-run", "scaletrain report my-run other-run --out both.html"))
@reported
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="runs by name, URL or folder, or their CONFIG files")
    ],
    root: Root = "bucket",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="a path or URL; by default runs/<name>/report.html in the bucket, of several runs ./report.html",
        ),
    ] = None,
) -> None:
    """Draw runs as a page: losses, speed, time, cost, faults, answers.

    Several runs are drawn into the same charts, and compared by their configurations. The page is one file that needs
    no network; it may be written while a run trains.
    """
    from scaletrain.report.report import write_report

    print(write_report([find_run_of(run, root) for run in runs], out=out))

"""`scaletrain simulate`: which workers, interval between saves and share of spot machines to take, by simulation."""

import re
from typing import Annotated, Any

import typer

from scaletrain.command import (
    Json,
    Overrides,
    Root,
    examples,
    find_run_of,
    is_config_file,
    load_config_file,
    print_result,
    reported,
)
from scaletrain.errors import ConfigError

app = typer.Typer()


@app.command(
    epilog=examples(
        "scaletrain simulate run.yaml --machine g6.24xlarge --workers 2..16 --days 3",
        "scaletrain simulate my-run --trace my-prices.csv --out report.html",
    )
)
@reported
def simulate(
    name: Annotated[str, typer.Argument(metavar="CONFIG_OR_RUN", help="a YAML file, or a run's name, URL or folder")],
    overrides: Overrides = None,
    trace: Annotated[
        str | None,
        typer.Option("--trace", metavar="FILE.csv", help="prices and interruptions; or calm, busy, scarce (synthetic)"),
    ] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", metavar="TYPE", help="a cloud's machine type, as g6.24xlarge")
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", metavar="TYPE", help="the head's machine type, on demand, as m5.xlarge")
    ] = None,
    region: Annotated[str | None, typer.Option("--region", help="whose prices count")] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="2..16", help="bounds to look within, not scaling.workers")
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", min=0.001, help="what all steps take undisturbed with the most workers")
    ] = None,
    deadline_days: Annotated[
        float | None,
        typer.Option("--deadline-days", min=0.001, help="9 of 10 runs are done by then; else: about as configured"),
    ] = None,
    taken_per_month: Annotated[
        float | None,
        typer.Option("--taken-per-month", min=0, help="spot machines taken in a month, as 0.2, without a trace"),
    ] = None,
    parameters: Annotated[
        float | None, typer.Option("--parameters", min=1, help="trained parameters, as 7e9; else the model is asked")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=2, help="simulated runs of each alternative")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="the same seed gives the same numbers")] = 0,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE.html", help="write a report with pictures")] = None,
    root: Root = "bucket",
    as_json: Json = False,
) -> None:
    """Simulate a run on machines that come, go and cost money.

    Many times, and with other settings; recommends how to run it, and says by how much that is better. A run that has
    trained a while gives its own step times, stalls and recoveries. Decisions are those of real runs: when to save, to
    grow, to wait and to give up. What is assumed is listed with it.
    """
    from scaletrain import storage
    from scaletrain.simulate.command import Question, answer

    bounds = _read_bounds(workers)
    config, run = _find(name, overrides, root)
    question = Question(
        config=config,
        run=run,
        trace=trace,
        machine=machine,
        head=head,
        region=region,
        workers=bounds,
        days=days,
        deadline_days=deadline_days,
        taken_per_month=taken_per_month,
        parameters=int(parameters) if parameters else None,
        runs=runs,
        seed=seed,
    )
    found = answer(question)
    if out is not None:
        storage.write_bytes(out, found.report())
    print_result(found.record(), as_json=as_json, display=found.display)


def _read_bounds(text: str | None) -> tuple[int, int] | None:
    """As "2..16", or a single number."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise ConfigError(f"--workers: got {text!r}; give the fewest and the most, as 2..16")
    return low, high


def _find(name: str, overrides: list[str] | None, root: str) -> tuple[Any, Any]:
    """The configuration, and the run that it is of, which may not have begun."""
    from scaletrain import storage
    from scaletrain.config_file import load_config
    from scaletrain.runs import check_exists

    run = find_run_of(name, root)
    if is_config_file(name):
        loaded = load_config_file(name, overrides)
        storage.configure(loaded.storage.root, loaded.storage.options)
        return loaded, run
    check_exists(run)
    return load_config(run.config, overrides or []), run

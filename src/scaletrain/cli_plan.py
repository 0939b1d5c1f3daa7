"""`scaletrain plan`: what a run will need and cost, before anything is spent; and how near the forecast came."""

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaletrain.command import Json, Overrides, Root, examples, find_run_of, load_config_file, print_result, reported
from scaletrain.errors import ConfigError, Problems

if TYPE_CHECKING:
    from scaletrain.plan.machines import Machines

app = typer.Typer()


@app.command(
    epilog=examples(
        "scaletrain plan run.yaml",
        "scaletrain plan run.yaml --cluster cluster/aws.yaml",
        "scaletrain plan run.yaml --machine p5.48xlarge --workers 8",
        "scaletrain plan --score my-run",
    )
)
@reported
def plan(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="a YAML file; a path or any fsspec URL")
    ] = None,
    overrides: Overrides = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="FILE", help="for the GPU machines of a cluster file")
    ] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", metavar="TYPE", help="for a cloud's machine type, as g6.xlarge")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="instead of scaling.workers")] = None,
    score: Annotated[
        str | None, typer.Option("--score", metavar="RUN", help="hold a run against the forecast of its beginning")
    ] = None,
    root: Root = "bucket",
    as_json: Json = False,
) -> None:
    """Forecast memory, time and money of a run; nothing is started.

    Names the cheapest way that fits: for a cluster file's machines, for a machine type, or without either for this
    machine. Of the model only its config.json is read. Bounds are bounds: what is exact says so. --score RUN compares
    what happened with what was forecast when the run began.
    """
    if score is not None:
        if config is not None or cluster is not None or machine is not None or workers is not None:
            raise ConfigError("--score RUN goes alone (with --root and --json): the run has its forecast already")
        _score(score, root, as_json)
        return
    if config is None:
        raise ConfigError("plan needs a CONFIG, as in `scaletrain plan run.yaml`, or --score RUN")
    problems = Problems()
    if cluster is not None and machine is not None:
        problems.append("got --cluster and --machine; keep one of the two")
    with problems.collecting():
        loaded = load_config_file(config, overrides)
    with problems.collecting():
        kinds = _machines(cluster, machine)
    problems.raise_any()
    _plan(loaded, kinds, workers, compare=cluster is None, as_json=as_json)


def _plan(config: Any, kinds: "list[Machines]", workers: int | None, *, compare: bool, as_json: bool) -> None:
    from scaletrain import storage
    from scaletrain.errors import DeviceError
    from scaletrain.plan.display import plan_display
    from scaletrain.plan.planning import make_plan

    storage.configure(config.storage.root, config.storage.options)
    first, *others = kinds
    if config.train.device == "cuda" and not first.gpus:
        raise DeviceError(f"train.device=cuda, and {first.name} has no GPU; name one with --machine, as g6.xlarge")
    found = make_plan(config, first, num_workers=workers, beside=None if compare else others)
    print_result(found.record(), as_json=as_json, display=lambda: plan_display(found, today=date.today()))


def _machines(cluster: str | None, machine: str | None) -> "list[Machines]":
    """What to plan for, the first before all; raises ConfigError."""
    from scaletrain.plan import machines

    if machine is not None:
        return [machines.of_type(machine)]
    return [machines.this_machine()] if cluster is None else _of_cluster(cluster)


def _of_cluster(path: str) -> "list[Machines]":
    """The machines of a cluster file that may train: those with GPUs, or all workers where none has."""
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.plan import machines

    file = load_cluster_file(path)
    kinds = [each for each in file.workers if each.instance_type is not None]
    kinds = [each for each in kinds if each.gpus] or kinds
    if not kinds:
        raise ConfigError(f"{path}: names no machine types (machines of your own?); name a like one with --machine")
    found, problems = {}, []
    for kind in kinds:
        name = _type_name(kind)
        if problem := machines.type_problem(name):
            problems.append(f"{path}: {problem}")
            continue
        found[name, kind.market] = machines.of_type(
            name, market=kind.market, region=file.region, head_type=file.head.instance_type
        )
    if problems and not found:
        raise ConfigError(problems)
    return list(found.values())


def _type_name(kind: Any) -> str:
    """A machine type as the table calls it: on Google Cloud with the GPUs that the file adds, n1-standard-8+1xT4."""
    added = kind.node_config.get("guestAccelerators") or ()
    name = str(kind.instance_type).rpartition("/")[2]
    for each in added:
        gpu = str(each.get("acceleratorType", "")).rpartition("-")[2].upper()
        if name.startswith("n1-"):
            return f"{name}+{each.get('acceleratorCount', 1)}x{gpu}"
    return name


def _score(run: str, root: str, as_json: bool) -> None:
    from scaletrain.plan.score import score_display, score_run

    found = score_run(find_run_of(run, root))
    print_result(found.record(), as_json=as_json, display=lambda: score_display(found))

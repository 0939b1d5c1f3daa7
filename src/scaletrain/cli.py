"""The command line: one function a command, each importing what it needs only when it runs.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 the run failed, 2 the input was wrong,
130 interrupted (the state was saved first).
"""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scaletrain import (
    __version__,
    cli_cluster,
    cli_data,
    cli_evaluate,
    cli_jobs,
    cli_judge,
    cli_models,
    cli_plan,
    cli_prices,
    cli_report,
    cli_runs,
    cli_serve,
    cli_simulate,
    cli_sweep,
)
from scaletrain.command import (
    ConfigFile,
    Json,
    Overrides,
    Root,
    RunName,
    examples,
    find_run_of,
    load_config_file,
    print_result,
    reported,
)
from scaletrain.errors import ConfigError
from scaletrain.log import console

# In the order in which one meets them.
_STAGES = {
    "From dumps to a model": ("doctor", "prepare", "train", "evaluate", "chat", "export"),
    "For other people": ("serve", "keys", "judge"),
    "Before paying, and many runs": ("plan", "simulate", "prices", "sweep"),
    "On a cluster": ("cluster", "submit", "jobs", "logs", "status", "stop", "down"),
    "What happened, and is it true": ("runs", "show", "report", "verify", "replay", "data", "config"),
}


class _ByStage(TyperGroup):
    """Lists the commands by what they are for, and tells whoever leaves them out."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in _STAGES.values() for name in names]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0].endswith((".yaml", ".yml")):
            ctx.fail(f"{args[0]!r} is no command; a CONFIG comes behind one, as in: scaletrain train {args[0]}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        longest = max(map(len, self.commands))
        told = {name: each.get_short_help_str(formatter.width - 6 - longest) for name, each in self.commands.items()}
        for stage, names in _STAGES.items():
            with formatter.section(stage):
                formatter.write_dl([(name.ljust(longest), told[name]) for name in names])


app = typer.Typer(
    name="scaletrain",
    cls=_ByStage,
    help="Train your own chat model: dialogue dumps in, a fine-tuned and measured model out.\n\n"
    "CONFIG is a YAML file (docs/configuration.md; launch/configs has some); any field can be changed behind it, as in "
    "train.steps=200. What a run leaves is in its bucket, a folder or URL: storage.root.",
    epilog=examples("scaletrain train launch/configs/quickstart.yaml", "scaletrain train --help"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


app.add_typer(cli_data.prepare_app)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_models.app)
app.add_typer(cli_plan.app)
app.add_typer(cli_simulate.app)
app.add_typer(cli_evaluate.app)
app.add_typer(cli_jobs.app)
app.add_typer(cli_runs.app, name="runs")
app.add_typer(cli_prices.app, name="prices")
app.add_typer(cli_runs.show_app)
app.add_typer(cli_report.app)
app.add_typer(cli_sweep.app, name="sweep")
app.add_typer(cli_cluster.cluster_app)
app.add_typer(cli_judge.app, name="judge")
app.add_typer(cli_serve.serve_app)
app.add_typer(cli_serve.keys_app, name="keys")


def main() -> None:
    """Entry point of the `scaletrain` command."""
    # Read when torch is first imported, here and in the processes that are started: OpenMP's threads spin while they
    # wait, and where something else wants the cores, a training on them takes many times as long for it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True)] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command(
    epilog=examples("scaletrain train run.yaml", "scaletrain train run.yaml train.steps=200 scaling.workers=1 --local")
)
@reported
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    local: Annotated[
        bool, typer.Option("--local", help="one GPU or CPU in this process, without Ray: breakpoint() works")
    ] = False,
) -> None:
    """Fine-tune; prepares what is missing.

    The same command goes on where the last one ended: after Ctrl-C, which saves first, a crash, or a lost machine.
    """
    from scaletrain.train.trainer import train as train_run

    summary = train_run(load_config_file(config, overrides), local=local)
    print(f"{summary.run_url} is at step {summary.step} of {summary.total_steps}")


@app.command(epilog=examples("scaletrain config run.yaml zero.stage=3"))
@reported
def config(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the resolved configuration, or every problem in it."""
    from scaletrain.config_file import dump_config
    from scaletrain.data.formats import check_settings

    loaded = load_config_file(config, overrides)
    check_settings(loaded.data.corpora)
    print(dump_config(loaded), end="")


@app.command(epilog=examples("scaletrain doctor run.yaml", "scaletrain doctor --cluster cluster/aws.yaml run.yaml"))
@reported
def doctor(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="a YAML file, whose bucket and sources are tried too")
    ] = None,
    overrides: Overrides = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="every node of the cluster this runs on, and all of them together")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="FILE", help="the same on a cluster that is up, as a job")
    ] = None,
) -> None:
    """Say whether this machine, or a cluster, is ready to train.

    Looks at versions, memory, disk, GPU and driver, and of CONFIG at the bucket and the first rows of each source. With
    --cluster FILE, at its nodes, in two minutes: each node's driver, /dev/shm, clock and bucket speed; then all workers
    reduce together and make 20 ZeRO-3 steps.
    """
    from scaletrain.doctor import diagnose, render

    if (nodes or cluster) and config is None:
        raise ConfigError("doctor needs a CONFIG to look at a cluster: its bucket is tried, and its number of workers")
    if cluster is not None:
        cli_jobs.submit(cluster, ["doctor", str(config), *(overrides or []), "--nodes"])
        return
    if nodes:
        _doctor_nodes(str(config), overrides)
        return
    if config is None:
        findings = diagnose(None, {})
    else:
        from scaletrain.data.source_check import sources

        loaded = load_config_file(config, overrides)
        findings = diagnose(loaded.storage.root, loaded.storage.options)  # connects to the storage, too
        findings += sources(loaded.data.corpora)
    console(stderr=False).print(render(findings))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)


def _doctor_nodes(config: str, overrides: list[str] | None) -> None:
    from scaletrain import devices, storage
    from scaletrain.cluster.node_doctor import check_nodes, render
    from scaletrain.train import on_ray
    from scaletrain.train.waiting import wait_for_workers

    loaded = load_config_file(config, overrides)
    storage.configure(loaded.storage.root, loaded.storage.options)
    with on_ray.cluster(loaded):
        device = devices.resolve_device(loaded.train.device, gpus=on_ray.count_gpus())
        group = wait_for_workers(
            loaded.scaling, device=device, wait_s=60 * loaded.scaling.wait_minutes, should_stop=lambda: False
        )
        findings = check_nodes(loaded, group, device=device)
    console(stderr=False).print(render(findings))
    if any(each.finding.status == "fail" for each in findings):
        raise typer.Exit(1)


@app.command(epilog=examples("scaletrain verify my-run --root s3://my-bucket/scaletrain"))
@reported
def verify(run: RunName, root: Root = "bucket", as_json: Json = False) -> None:
    """Prove that a run lost nothing, repeated nothing and is whole.

    From the bucket alone: every committed step has to be there once, with the samples of its place in the order of the
    data, chained by hash; every byte of every checkpoint has to match its checksum. Ends with 1 where anything does
    not, and says what.
    """
    from scaletrain.verify import verdict_display, verify_run

    found = verify_run(find_run_of(run, root))
    print_result(found.record(), as_json=as_json, display=lambda: verdict_display(found))
    if found.problems:
        raise typer.Exit(1)


@app.command(epilog=examples("scaletrain replay my-run --step 120 --blame"))
@reported
def replay(
    run: RunName,
    step: Annotated[int, typer.Option("--step", help="counted from 1")],
    root: Root = "bucket",
    rank: Annotated[int | None, typer.Option("--rank", help="only what this worker had")] = None,
    rows: Annotated[int, typer.Option("--rows", help="how many rows to print decoded")] = 2,
    blame: Annotated[bool, typer.Option("--blame", help="rank the rows by their loss before the step")] = False,
    local: Annotated[bool, typer.Option("--local", help="stop in Python's debugger just before the step")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cuda or cpu")] = "auto",
    as_json: Json = False,
) -> None:
    """Rebuild the exact batch of one step of a run, and look at it.

    With --blame or --local its state is rebuilt too, on one GPU or CPU, from the nearest checkpoint before it. A step
    that was skipped for a loss that is not finite shows at once which rows did it.
    """
    from scaletrain.replay import replay_display, replay_step

    if device not in ("auto", "cuda", "cpu"):
        raise ConfigError(f"--device={device}: give auto, cuda or cpu")
    found = replay_step(
        find_run_of(run, root),
        step,
        rank=rank,
        blame=blame,
        debugger=local,
        show_rows=rows,
        device=device,  # type: ignore[arg-type]
    )
    print_result(found.record(), as_json=as_json, display=lambda: replay_display(found))

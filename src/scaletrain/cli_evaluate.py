"""`scaletrain evaluate`: how good a run's model is, and how much better than it was."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaletrain.command import (
    ConfigFile,
    Json,
    Overrides,
    examples,
    find_run_of,
    load_config_file,
    print_result,
    reported,
)
from scaletrain.errors import ConfigError

if TYPE_CHECKING:
    from scaletrain.config import Config
    from scaletrain.evaluate.compare import Other
    from scaletrain.evaluate.judge_client import Judge

app = typer.Typer()


@app.command(
    epilog=examples("scaletrain evaluate run.yaml", "scaletrain evaluate run.yaml --against other-run@300 --json")
)
@reported
def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    step: Annotated[int | None, typer.Option("--step", help="this checkpoint instead of the newest")] = None,
    only: Annotated[str | None, typer.Option("--only", help="base or trained: measure just that model")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="RUN[@STEP]",
            help="compare with this run's newest checkpoint, or that of a step (0: what it started from)",
        ),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="in this process, without Ray")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="measure each new checkpoint while the run trains; ends with the run")
    ] = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks", metavar="FILE_OR_NAME", help="also this lm-eval task, a YAML file or a name; again for more"
        ),
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option("--judge-url", help="an OpenAI-compatible URL, whose model judges the sample answers"),
    ] = None,
    judge_model: Annotated[str | None, typer.Option("--judge-model", help="the model to ask there")] = None,
    as_json: Json = False,
) -> None:
    """Measure perplexity and sample answers, before and after.

    Perplexity is that of held-out conversations, before and after training. Figures come by corpus, language and turn,
    with intervals over conversations and a paired test; they are kept in the run's folder as JSON, with summary.md and
    report.html. The judge's key is read from the environment variable that evaluate.judge_key names.
    """
    from scaletrain import devices, storage
    from scaletrain.evaluate.compare import evaluate as evaluate_run
    from scaletrain.evaluate.on_ray import count_workers
    from scaletrain.evaluate.report import publish
    from scaletrain.evaluate.summary import display

    _check(
        step=step, only=only, against=against, watch=watch, tasks=tasks, judge_url=judge_url, judge_model=judge_model
    )
    loaded = load_config_file(config, overrides)
    storage.configure(loaded.storage.root, loaded.storage.options)
    judge = _judge(judge_url, judge_model, loaded)
    device = devices.resolve_device(loaded.train.device, gpus=devices.count_local_gpus())
    how: dict[str, Any] = {
        "device": device,
        "precision": devices.resolve_precision(loaded.train.precision, device),
        "workers": 1 if local else count_workers(loaded.evaluate.num_workers, device=device),
    }
    if watch:
        _watch(loaded, how, as_json=as_json)
        return
    found = evaluate_run(
        loaded,
        step=step,
        only=only,  # type: ignore[arg-type]
        against=None if against is None else _other(against, loaded.storage.root),
        tasks=tuple(tasks or ()),
        judge=judge,
        **how,
    )
    publish(found, root=loaded.storage.root)
    print_result(found.record(), as_json=as_json, display=lambda: display(found))


def _check(
    *,
    step: int | None,
    only: str | None,
    against: str | None,
    watch: bool,
    tasks: list[str] | None,
    judge_url: str | None,
    judge_model: str | None,
) -> None:
    """Raise ConfigError with every problem of the options."""
    problems = []
    if only not in (None, "base", "trained"):
        problems.append(f"--only={only}: give base or trained")
    if step is not None and step < 1:
        problems.append(f"--step={step}: give 1 or more; --only base measures the model that training starts from")
    if against is not None and only is not None:
        problems.append("--against compares two models, and --only measures one; remove one of the two")
    if (judge_url is None) != (judge_model is None):
        missing = "--judge-model" if judge_model is None else "--judge-url"
        problems.append(f"{missing}: missing; --judge-url and --judge-model go together")
    if judge_url is not None and only is not None:
        problems.append("--judge-url compares two models' answers, and --only measures one; remove one of the two")
    given = {"--step": step, "--only": only, "--against": against, "--tasks": tasks, "--judge-url": judge_url}
    if watch and (named := [name for name, value in given.items() if value]):
        problems.append(f"--watch measures every checkpoint, and does not go with {', '.join(named)}; remove these")
    if problems:
        raise ConfigError(problems)


def _judge(url: str | None, model: str | None, config: "Config") -> "Judge | None":
    from scaletrain.evaluate.judge_client import Judge

    return None if url is None else Judge(url, str(model), config.evaluate.judge_key)


def _other(against: str, root: str) -> "Other":
    """The run and step that RUN[@STEP] names; a path may have an @ of its own."""
    from scaletrain.evaluate.compare import Other

    name, at, step = against.rpartition("@")
    if not at:
        return Other(find_run_of(against, root), None)
    if not step.isdecimal():
        raise ConfigError(f"--against={against}: after the @ comes a step's number, as in my-run@200")
    return Other(find_run_of(name, root), int(step))


def _watch(config: "Config", how: dict[str, Any], *, as_json: bool) -> None:
    """Print a line for each checkpoint as it is measured, and keep the report up to date."""
    from scaletrain.evaluate.compare import watch_run
    from scaletrain.evaluate.report import publish

    for evaluation in watch_run(config, **how):
        publish(evaluation, root=config.storage.root)
        assert evaluation.after is not None
        point = {"step": evaluation.after.subject.step, **evaluation.after.perplexities[0].record()}
        if as_json:
            import orjson

            print(orjson.dumps(point).decode(), flush=True)
        else:
            text = "step {step}: perplexity {perplexity:.2f} ({low:.2f} to {high:.2f}), {bits_per_byte:.3f} bits/byte"
            print(text.format(**point), flush=True)

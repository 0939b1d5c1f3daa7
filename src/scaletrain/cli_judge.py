"""`scaletrain judge`: blind human evaluation, from answers to votes to what they say."""

import os
from typing import Annotated, Any, Literal

import typer

from scaletrain.cli_judge_votes import Database, ItemsFile, check_installed, items_of
from scaletrain.cli_judge_votes import app as votes_app
from scaletrain.command import Root, examples, find_run_of, is_config_file, reported
from scaletrain.errors import ConfigError
from scaletrain.log import get_logger

log = get_logger(__name__)

app = typer.Typer(
    help="Blind human evaluation: people choose between two answers.\n\nThey are not told whose the answers are.",
    epilog=examples(
        "scaletrain judge prepare base=HuggingFaceTB/SmolLM2-135M-Instruct trained=my-run --prompts prompts.txt",
        "scaletrain judge serve judging.jsonl",
        "scaletrain judge result judging.jsonl",
        "scaletrain judge export judging.jsonl preferences.jsonl",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(votes_app)

KeyFrom = Annotated[
    str | None,
    typer.Option("--key-from", metavar="VARIABLE", help="the environment variable with the servers' API key"),
]


@app.command(
    "prepare",
    epilog=examples(
        "scaletrain judge prepare base=HuggingFaceTB/SmolLM2-135M-Instruct trained=my-run --prompts prompts.txt",
        "scaletrain judge prepare --from-run my-run",
    ),
)
@reported
def prepare(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]MODEL",
            help="two or more: runs, CONFIGs, folders, URLs, GGUF files, Hugging Face ids, OpenAI-compatible servers "
            "as https://host/v1#MODEL; or .json files of `scaletrain evaluate`",
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="the file to write; any URL")] = "judging.jsonl",
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", metavar="FILE", help='one prompt a line, or .jsonl of {"prompt"} or {"messages"}'),
    ] = None,
    from_run: Annotated[
        str | None,
        typer.Option("--from-run", metavar="RUN", help="the answers that `scaletrain evaluate` has kept of this run"),
    ] = None,
    root: Root = "bucket",
    system: Annotated[str | None, typer.Option("--system", help="the system prompt, where a prompt has none")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the most likely token")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="sample from the likeliest tokens of this mass")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="the longest answer")] = 512,
    seed: Annotated[int, typer.Option("--seed", help="another one gives other answers, where they are sampled")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cuda or cpu")] = "auto",
    key_from: KeyFrom = None,
) -> None:
    """Write the answers that are to be judged.

    They are asked of models now, or are those of an evaluation.
    """
    from scaletrain.judge import prepare as preparing
    from scaletrain.judge.contenders import contenders
    from scaletrain.judge.items import Items, write_items
    from scaletrain.model.generate import Sampling

    source = _source(models, prompts, from_run)
    if device not in ("auto", "cuda", "cpu"):
        raise ConfigError(f"--device={device}: give auto, cuda or cpu")
    if source == "run":
        items = preparing.from_run(find_run_of(str(from_run), root))
    elif source == "evaluations":
        items = preparing.from_measurements(models or [])
    else:
        named = contenders([_run_of_config(each, root) for each in models or []])
        asked = preparing.read_prompts(str(prompts), system_prompt=system)
        sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
        key = _key(key_from)
        items = preparing.answered(asked, named, root=root, sampling=sampling, device=device, key=key)  # type: ignore[arg-type]
    write_items(out, items)
    judged = Items(tuple(items))
    print(
        f"{out}: {len(items):,} prompts, {len(judged.pairs):,} pairs of answers to judge, "
        f"{judged.equal_answers:,} more of equal answers"
    )
    if not judged.pairs:
        log.warning("there is nothing to judge: all models gave the same answers")


@app.command(
    "serve",
    epilog=examples(
        "scaletrain judge serve judging.jsonl",
        "scaletrain judge serve judging.jsonl --host 0.0.0.0 --judge Ana --judge Ben",
    ),
)
@reported
def serve(
    file: ItemsFile,
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", metavar="NAME", help="who may vote, with a link of their own; may be repeated"),
    ] = None,
    votes: Database = None,
    host: Annotated[
        str, typer.Option("--host", help="the address to listen at; others than this machine need --judge")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free")] = 8300,
    overlap: Annotated[
        float,
        typer.Option("--overlap", min=0, max=1, help="share of the pairs that a second judge sees too, for agreement"),
    ] = 0.2,
    reason: Annotated[
        list[str] | None, typer.Option("--reason", metavar="TEXT", help="a reason to choose from; may be repeated")
    ] = None,
    question: Annotated[str, typer.Option("--question", help="what judges are asked")] = "Which answer is better?",
    seed: Annotated[int, typer.Option("--seed", help="decides order and sides")] = 0,
    live: Annotated[
        list[str] | None,
        typer.Option(
            "--live",
            metavar="NAME=URL",
            help="judges ask models themselves, once nothing prepared is left: an OpenAI-compatible server as "
            "https://host/v1#MODEL; two or more; FILE need not be there",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="with --live: the system prompt")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="with --live: 0.7 unless said")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="with --live: 512")] = None,
    key_from: KeyFrom = None,
) -> None:
    """Serve the page on which people vote, until Ctrl-C.

    A vote is on disk before the next pair is shown. For judges elsewhere name them, and put something in front that
    adds TLS.
    """
    check_installed()
    from scaletrain.judge.dealing import Dealer
    from scaletrain.judge.judging import REASONS, Judging
    from scaletrain.judge.names import judge_names
    from scaletrain.judge.server import check_address
    from scaletrain.judge.server import serve as serve_judging
    from scaletrain.judge.vote_store import VoteStore, database_beside

    judges = judge_names(judge or [])
    check_address(host, judges)
    setting = _live_setting(live or [], system, temperature, max_new_tokens, key_from)
    items = items_of(file, may_miss=setting is not None)
    judging = Judging(
        items=items,
        store=VoteStore(votes or database_beside(file)),
        dealer=Dealer(list(items.pairs), overlap=overlap, seed=seed),
        judges=judges,
        reasons=tuple(reason or REASONS),
        question=question,
        live=setting,
    )
    serve_judging(judging, host=host, port=port)


def _source(
    models: list[str] | None, prompts: str | None, from_run: str | None
) -> Literal["models", "evaluations", "run"]:
    """Where the answers are to come from; ConfigError where that is not one thing."""
    measured = bool(models) and all(name.endswith(".json") for name in models or ())
    if bool(models) == (from_run is not None):
        raise ConfigError(
            "give models with --prompts FILE, or .json files of evaluations, or --from-run RUN: one of these"
        )
    if models and not measured:
        if prompts is None:
            raise ConfigError("models need --prompts FILE to answer")
        return "models"
    if prompts is not None:
        raise ConfigError("--prompts: the answers of an evaluation are given; leave it out")
    return "evaluations" if measured else "run"


def _live_setting(
    named: list[str],
    system: str | None,
    temperature: float | None,
    max_new_tokens: int | None,
    key_from: str | None,
) -> Any:
    """Whom judges may ask themselves, or None; ConfigError for options that would be ignored."""
    from scaletrain.judge.contenders import contenders, is_remote
    from scaletrain.judge.live import LiveSetting

    given = {
        "--system": system,
        "--temperature": temperature,
        "--max-new-tokens": max_new_tokens,
        "--key-from": key_from,
    }
    if not named:
        if ignored := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"{', '.join(ignored)}: only with --live, for models that judges ask themselves")
        return None
    found = contenders(named)
    if problems := [
        f"--live {each.model}: is no address; give https://host/v1#MODEL" for each in found if not is_remote(each.model)
    ]:
        raise ConfigError(problems)
    return LiveSetting(
        found,
        temperature=0.7 if temperature is None else temperature,
        max_tokens=max_new_tokens or 512,
        system_prompt=system,
        key=_key(key_from),
    )


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"--key-from {variable}: there is no such environment variable; export it first")
    return os.environ[variable]


def _run_of_config(named: str, root: str) -> str:
    """[NAME=]CONFIG as [NAME=]URL of its run; anything else as it is."""
    name, equals, model = named.rpartition("=")
    return f"{name}{equals}{find_run_of(model, root).url}" if is_config_file(model) else named

"""`scaletrain serve`, models behind an OpenAI-compatible API and a web chat; `scaletrain keys`, who may use them."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaletrain.command import (
    Json,
    Root,
    examples,
    find_run_of,
    is_config_file,
    load_config_file,
    print_result,
    reported,
)
from scaletrain.errors import ConfigError

if TYPE_CHECKING:
    from scaletrain.config import StorageSection
    from scaletrain.config_serve import ServeSection
    from scaletrain.serve.http_server import ApiServer
    from scaletrain.serve.keys import Key

serve_app = typer.Typer()
keys_app = typer.Typer(
    help="Make, list and revoke API keys for `serve --keys FILE`.\n\nA server that runs notices within a second.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

KeysFile = Annotated[str, typer.Option("--keys", metavar="FILE", help="the file that `serve --keys` is given")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_OR_CONFIG", help="a run or its CONFIG, a folder, a URL, a GGUF file or a Hugging Face id"
    ),
]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="serve.KEY=VALUE", help="settings, as serve.timeout_s=120")
]
Name = Annotated[str | None, typer.Option("--name", help="what clients call MODEL; made of MODEL by default")]
More = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME=MODEL", help="serve this one too; may be repeated")
]
Adapter = Annotated[
    list[str] | None,
    typer.Option("--adapter", metavar="NAME=FOLDER", help="MODEL with this LoRA adapter, as NAME; may be repeated"),
]
Host = Annotated[str | None, typer.Option("--host", help="address to listen on; any that others reach needs --keys")]
Port = Annotated[int | None, typer.Option("--port", help="8000 by default; 0: any free one")]
AskForKeys = Annotated[
    str | None, typer.Option("--keys", metavar="FILE", help="ask for a key of this file (see scaletrain keys)")
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="URL", help="a web site whose pages may call the API; may be repeated"),
]
Feedback = Annotated[
    str | None, typer.Option("--feedback", metavar="FILE", help="keep the web chat's thumbs up and down here")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cuda or cpu")]
Replicas = Annotated[
    str | None, typer.Option("--replicas", metavar="N|MIN-MAX", help="on Ray Serve, scaled with the load")
]


@serve_app.command(
    epilog=examples(
        "scaletrain serve run.yaml",
        "scaletrain serve my-run --keys keys.json --allow-origin https://shop.example serve.timeout_s=120",
    )
)
@reported
def serve(
    model: Model,
    overrides: Settings = None,
    more: More = None,
    adapter: Adapter = None,
    name: Name = None,
    host: Host = None,
    port: Port = None,
    keys: AskForKeys = None,
    allow_origin: AllowOrigin = None,
    feedback: Feedback = None,
    device: Device = None,
    replicas: Replicas = None,
    root: Root = "bucket",
) -> None:
    """Serve models: OpenAI's API, a web chat, a widget, metrics.

    The API is at /v1, the web chat at /, Prometheus's figures at /metrics. One process on this machine by default; with
    --replicas, or as a job on a cluster, replicas on Ray Serve. A newer checkpoint of a run, or a folder that is
    exported anew, takes over without a request lost. SIGTERM (Ctrl-C) lets what runs end. Settings of the section
    `serve` may follow MODEL: serve.max_running=16 (docs/serving.md).
    """
    from scaletrain import storage
    from scaletrain.serve.models import Origin
    from scaletrain.serve.server import serve as serve_models

    flags = {
        "host": host,
        "port": port,
        "keys": keys,
        "allow_origins": allow_origin,
        "feedback": feedback,
        "device": device,
        "replicas": _replicas(replicas),
    }
    section, store, source = _settings(model, overrides or [], flags, root=root)
    storage.configure(store.root, store.options)
    adapters, others = _named("--adapter", adapter or []), _named("--model", more or [])
    name = name or _name_of(source)
    names = [name, *adapters, *others]
    if twice := {each for each in names if names.count(each) > 1}:
        raise ConfigError(
            [f"{each}: is the name of two models; give each its own (MODEL's is --name)" for each in twice]
        )
    origins = [Origin(name, source, adapters), *(Origin(each, others[each]) for each in others)]
    serve_models(section, origins, store=store, root=store.root, ready=_tell_ready)


@keys_app.command(
    "add", epilog=examples("scaletrain keys add website --requests-per-minute 60 --tokens-per-minute 20000")
)
@reported
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="whose key it is, for `list` and `revoke`")],
    keys: KeysFile = "keys.json",
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", help="no limit by default")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", help="of prompts and answers together; no limit by default")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="may read /metrics and call /admin/reload")] = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from pathlib import Path

    from scaletrain.serve.keys import add_key

    print(
        add_key(
            Path(keys),
            name,
            admin=admin,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
    )
    print(f"kept in {keys} as {name!r}; it is shown this once", file=sys.stderr)


@keys_app.command("list", epilog=examples("scaletrain keys list --keys keys.json"))
@reported
def list_keys(keys: KeysFile = "keys.json", as_json: Json = False) -> None:
    """List the keys: names and limits, never the keys themselves."""
    from pathlib import Path

    from scaletrain.serve.keys import read_keys

    found = read_keys(Path(keys))
    record = [
        {
            "name": key.name,
            "id": key.id,
            "created": key.created,
            "admin": key.admin,
            "requests_per_minute": key.requests_per_minute,
            "tokens_per_minute": key.tokens_per_minute,
        }
        for key in found
    ]
    print_result(record, as_json=as_json, display=lambda: _keys_table(found))


@keys_app.command("revoke", epilog=examples("scaletrain keys revoke website"))
@reported
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="as `scaletrain keys list` shows it")],
    keys: KeysFile = "keys.json",
) -> None:
    """Take a key back.

    A server that runs refuses it from the next second on.
    """
    from pathlib import Path

    from scaletrain.serve.keys import revoke_key

    print(f"{revoke_key(Path(keys), name).name} is revoked")


def _settings(
    model: str, overrides: list[str], flags: dict[str, Any], *, root: str
) -> "tuple[ServeSection, StorageSection, str]":
    """The section `serve` with the flags in it, where things are stored, and the model as a run's URL or as it is."""
    from scaletrain import storage
    from scaletrain.config_file import parse_config
    from scaletrain.layout import RunLayout
    from scaletrain.runs import check_exists

    given = {key: value for key, value in flags.items() if value not in (None, [])}
    words = [f"serve.{key}={_yaml(value)}" for key, value in given.items()]
    if is_config_file(model):
        loaded = load_config_file(model, [*overrides, *words])
        storage.configure(loaded.storage.root, loaded.storage.options)
        run = RunLayout(loaded.storage.root, loaded.name)
        check_exists(run)
        return loaded.serve, loaded.storage, run.url
    strangers = [each for each in overrides if not each.startswith(("serve.", "storage."))]
    if strangers:
        raise ConfigError([f"{each}: without a CONFIG only serve.KEY=VALUE can be set" for each in strangers])
    # The sections that a run needs and a server does not, filled with what nobody reads.
    text = "name: served\nmodel: {source: none}\ndata: {corpora: [{format: messages, source: none}]}\ntrain: {steps: 1}"
    loaded = parse_config(
        text, source="the command line", overrides=[f"storage.root={_yaml(root)}", *overrides, *words]
    )
    return loaded.serve, loaded.storage, model


def _yaml(value: Any) -> str:
    from scaletrain.yaml_text import dump_value

    return dump_value(value)


def _replicas(text: str | None) -> int | dict[str, int] | None:
    if text is None:
        return None
    least, dash, most = text.partition("-")
    try:
        return {"min": int(least), "max": int(most)} if dash else int(least)
    except ValueError as exc:
        raise ConfigError(f"--replicas {text}: give a number, or MIN-MAX as 1-4") from exc


def _named(option: str, pairs: list[str]) -> dict[str, str]:
    """What a repeated option NAME=MODEL gives."""
    named: dict[str, str] = {}
    problems = []
    for pair in pairs:
        name, _, source = pair.partition("=")
        if not (name and source):
            problems.append(f"{option} {pair}: write NAME={'FOLDER' if option == '--adapter' else 'MODEL'}")
        elif name in named:
            problems.append(f"{option} {pair}: {name} is the name of another one too; give each its own")
        else:
            named[name] = find_run_of(source, "bucket").url if is_config_file(source) else source
    if problems:
        raise ConfigError(problems)
    return named


def _name_of(source: str) -> str:
    """What clients call a model: the last part of its URL that says something."""
    parts = [part for part in source.rstrip("/").split("/") if part not in ("", ".", "export")]
    return parts[-1].removesuffix(".gguf") if parts else source


def _tell_ready(server: "ApiServer") -> None:
    """Say on stdout where the server answers, once it does."""
    names = ", ".join(offer.name for offer in server.service.models.all())
    print(f"{server.url}/v1 serves {names}; the web chat is at {server.url}", flush=True)


def _keys_table(keys: "list[Key]") -> Any:
    from rich.table import Table

    table = Table("name", "id", "made", "requests a minute", "tokens a minute", "admin")
    for key in keys:
        limits = (key.requests_per_minute, key.tokens_per_minute)
        shown = [f"{limit:,}" if limit is not None else "any" for limit in limits]
        table.add_row(key.name, key.id, key.created, *shown, "yes" if key.admin else "")
    return table

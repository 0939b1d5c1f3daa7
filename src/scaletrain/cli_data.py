"""`scaletrain prepare`, and `scaletrain data`: looking into prepared datasets, checking and comparing them."""

from typing import Annotated

import typer

from scaletrain.command import (
    ConfigFile,
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

prepare_app = typer.Typer()
app = typer.Typer(
    help="Look into prepared datasets: show rows, check, compare two.\n\n"
    "DATASET is the URL that `scaletrain prepare` prints, as bucket/data/0123456789abcdef, or a run or its CONFIG, "
    "which stand for the dataset that the run is, or would be, trained on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="a dataset's URL or folder, or a run or its CONFIG")]


@prepare_app.command(
    epilog=examples("scaletrain prepare run.yaml", "scaletrain prepare run.yaml --explain dump.jsonl:12")
)
@reported
def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="in this process, without Ray")] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="ID",
            help="what became of one row: what the dump calls it, its file:line, or its key in the provenance",
        ),
    ] = None,
) -> None:
    """Clean, tokenise and pack the corpora into the bucket, once.

    The dataset is reused by every run that it fits; its URL is printed. With --explain ID, tell one conversation's life
    instead: where it was read, what changed it, why it was left out, or which samples it is in.
    """
    from scaletrain import storage
    from scaletrain.data.prepare import prepare as prepare_data
    from scaletrain.data.provenance import explain as find_lives

    loaded = load_config_file(config, overrides)
    storage.configure(loaded.storage.root, loaded.storage.options)
    url = prepare_data(loaded, use_ray=not local).dataset_url
    if explain is None:
        print(url)
        return
    print("\n\n".join("\n".join(life.lines(url)) for life in find_lives(url, explain)))


@app.command("show", epilog=examples("scaletrain data show bucket/data/0123456789abcdef --n 3 --split validation"))
@reported
def show(
    dataset: Dataset,
    n: Annotated[int, typer.Option("--n", help="how many rows")] = 5,
    split: Annotated[str, typer.Option("--split", help="train or validation")] = "train",
    seed: Annotated[int | None, typer.Option("--seed", help="other rows, the same for the same seed")] = None,
    sample: Annotated[int | None, typer.Option("--sample", help="just the row with this sample_id")] = None,
    root: Root = "bucket",
    as_json: Json = False,
) -> None:
    """Show rows decoded, in green what is learned from.

    A row has several conversations, which do not see one another; they are shown apart.
    """
    from scaletrain.data.show import rows_display, show_rows

    dataset_url, model_url = _find(dataset, root)
    rows = show_rows(dataset_url, model_url=model_url, split=split, count=n, seed=seed, sample_id=sample)
    print_result([row.record() for row in rows], as_json=as_json, display=lambda: rows_display(rows))


@app.command("check", epilog=examples("scaletrain data check bucket/data/0123456789abcdef"))
@reported
def check(dataset: Dataset, root: Root = "bucket", as_json: Json = False) -> None:
    """Read a whole dataset and list everything that is wrong with it.

    Ends with 1 where anything is. Every file has to match the checksum in the index; every row its sample_id, lengths,
    labels and padding; and the provenance has to tell of every document.
    """
    from scaletrain.data.check import check_dataset

    found = check_dataset(_find(dataset, root)[0])
    print_result(found.record(), as_json=as_json, display=found.lines)
    if found.problems:
        raise typer.Exit(1)


@app.command("diff", epilog=examples("scaletrain data diff bucket/data/0123456789abcdef bucket/data/fedcba9876543210"))
@reported
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="a dataset's URL or folder, or a run or its CONFIG")],
    after: Annotated[str, typer.Argument(metavar="B", help="another one")],
    root: Root = "bucket",
    as_json: Json = False,
) -> None:
    """Compare two datasets: settings, counts, and conversations.

    Of the conversations that went it says why.
    """
    from scaletrain.data.diff import diff_datasets, difference_display

    found = diff_datasets(_find(before, root)[0], _find(after, root)[0])
    print_result(found.record(), as_json=as_json, display=lambda: difference_display(found))


def _find(name: str, root: str) -> tuple[str, str | None]:
    """The URL of the dataset that a user means, and that of the model of its run, where it was named by one."""
    from scaletrain import checkpoint, storage
    from scaletrain.data.shards import INDEX
    from scaletrain.run_inputs import inputs_of

    name = name.rstrip("/")
    if not is_config_file(name) and storage.exists(storage.join(name, INDEX)):
        return name, None
    run = find_run_of(name, root)
    if not is_config_file(name) and not storage.exists(run.config):
        raise ConfigError(
            f"{name}: neither a dataset (there is no {storage.join(name, INDEX)}) nor a run at {run.url}; "
            "`scaletrain prepare CONFIG` prints a dataset's URL"
        )
    newest = checkpoint.latest(run)
    if newest is not None:
        inputs = inputs_of(run, newest)
        return inputs.dataset_url, inputs.model_url
    if is_config_file(name):
        return _prepared_for(name), None
    raise ConfigError(
        f"{run.url}: has not committed a step yet, so it does not say which dataset it is trained on; give the "
        "dataset's URL, which `scaletrain prepare` prints with its configuration"
    )


def _prepared_for(config_file: str) -> str:
    """The dataset that a run which has not committed a step yet would take."""
    from scaletrain.plan.work import find_dataset

    found = find_dataset(load_config_file(config_file, None))
    if found is None:
        raise ConfigError(
            f"{config_file}: its run has not committed a step yet, and no prepared dataset is found for it; give the "
            f"URL that `scaletrain prepare {config_file}` prints"
        )
    return found[0]

"""Rows of a dataset as training sees them: decoded, documents apart, what is learned from marked."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from scaletrain import storage
from scaletrain.data.decoded import Span, decode_spans, spans_text
from scaletrain.data.rows import read_samples
from scaletrain.data.shards import IGNORED_LABEL, DatasetIndex, load_index
from scaletrain.errors import ConfigError, ModelError, ScaletrainError
from scaletrain.model import build, store

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class ShownRow:
    """One decoded row; `corpora` has the corpus of each of its documents, which `spans` number from 1."""

    split: str
    sample_id: int
    tokens: int
    supervised_tokens: int
    corpora: Sequence[str]
    spans: Sequence[Span]

    def record(self) -> dict[str, object]:
        """The row as plain data."""
        return asdict(self)


def show_rows(
    dataset_url: str,
    *,
    model_url: str | None = None,
    split: str = "train",
    count: int = 5,
    seed: int | None = None,
    sample_id: int | None = None,
) -> list[ShownRow]:
    """Decode the first rows of a split, which are shuffled already; with a seed others, or just the one asked for.

    Without `model_url`, the tokenizer is that of a model beside the dataset. Raises ConfigError, DataError, ModelError
    where there is none, StorageError.
    """
    index = load_index(dataset_url)
    ids = _choose(index, split=split, count=count, seed=seed, sample_id=sample_id)
    tokenizer = build.load_tokenizer(model_url or find_model(dataset_url, index))
    samples = read_samples(dataset_url, index, split=split, ids=np.array(ids, dtype=np.int64))
    rows = []
    for place, sample in enumerate(ids):
        documents, corpora = samples.documents[place], samples.corpora[place]
        firsts = np.flatnonzero(np.diff(documents, prepend=0) * (documents > 0))
        rows.append(
            ShownRow(
                split=split,
                sample_id=sample,
                tokens=int(samples.tokens[place]),
                supervised_tokens=int(samples.supervised_tokens[place]),
                corpora=[index.corpora[corpus] for corpus in corpora[firsts].tolist()],
                spans=decode_spans(
                    samples.input_ids[place], samples.labels[place] != IGNORED_LABEL, documents, tokenizer
                ),
            )
        )
    return rows


def rows_display(rows: Sequence[ShownRow]) -> "RenderableType":
    """Rows as a person reads them."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.text import Text

    shown: list[RenderableType] = []
    for row in rows:
        title = f"{row.split} sample {row.sample_id}: {row.tokens} tokens; documents of {', '.join(row.corpora)}"
        shown += [Rule(Text(title)), spans_text(row.spans)]
    tokens, supervised = sum(row.tokens for row in rows), sum(row.supervised_tokens for row in rows)
    shown.append(Rule())
    shown.append(Text.assemble(("green", "green"), f": learned from ({supervised:,} of {tokens:,} tokens shown)"))
    return Group(*shown)


def find_model(dataset_url: str, index: DatasetIndex) -> str:
    """The model beside a dataset (ROOT/models) whose tokenizer it was made with; ModelError where there is none."""
    root = storage.absolute(dataset_url).rstrip("/").rsplit("/", 2)[0]
    models = storage.join(root, "models")
    for name in storage.list_folders(models):
        url = storage.join(models, name)
        try:
            if store.load_index(url).tokenizer_hash == index.tokenizer:
                return url
        except ScaletrainError:  # a model that is half copied is not the one
            continue
    raise ModelError(
        f"{models}: no model here has the tokenizer of {dataset_url}; run `scaletrain prepare` with its configuration, "
        "which puts the model back"
    )


def _choose(index: DatasetIndex, *, split: str, count: int, seed: int | None, sample_id: int | None) -> list[int]:
    """The sample ids to show."""
    rows = index.splits[split].rows if split in index.splits else 0
    problems = []
    if not rows:
        full = ", ".join(name for name, each in index.splits.items() if each.rows)
        problems.append(f"--split={split}: there is no such row in this dataset; it has rows in {full}")
    if count < 1:
        problems.append(f"--n={count}: give 1 or more")
    if sample_id is not None and rows and not 0 <= sample_id < rows:
        problems.append(f"--sample={sample_id}: the {split} split has the samples 0 to {rows - 1}")
    if problems:
        raise ConfigError(problems)
    if sample_id is not None:
        return [sample_id]
    count = min(count, rows)
    return list(range(count)) if seed is None else random.Random(seed).sample(range(rows), count)

"""How much there is to train: steps and tokens, by the prepared dataset where there is one, else by the settings."""

import math
from dataclasses import dataclass

from scaletrain import checkpoint, storage
from scaletrain.config import Config
from scaletrain.data.shards import INDEX, DatasetIndex, load_index
from scaletrain.errors import ScaletrainError
from scaletrain.layout import RunLayout, dataset_url
from scaletrain.model import sources

_MOST_HASHED_BYTES = 1_000_000_000
_SUPERVISED_SHARE = 0.5  # of a conversation's tokens, where nothing is known (model/loss.py)


@dataclass(frozen=True)
class Work:
    """What a run trains: `steps` (None: unknown) of `rows` rows, with what is known of the rows.

    `supervised_share` of the tokens is None where no dataset was found; `origin` says where all this is from.
    """

    steps: int | None
    rows: int
    tokens_per_row: float
    supervised_share: float | None
    origin: str

    @property
    def likely_supervised_share(self) -> float:
        """The share to reckon with."""
        return _SUPERVISED_SHARE if self.supervised_share is None else self.supervised_share

    @property
    def tokens(self) -> float | None:
        """Tokens of the whole run."""
        return None if self.steps is None else self.steps * self.rows * self.tokens_per_row


def work_of(config: Config) -> Work:
    """Find the dataset that the configuration trains on, if it was prepared, and count what there is to do."""
    found = find_dataset(config)
    if found is not None:
        return work_with(config, *found)
    return Work(
        steps=config.train.steps,
        rows=config.train.global_batch_size,
        tokens_per_row=float(config.data.seq_len),
        supervised_share=None,
        origin="the settings: the dataset is not prepared, so rows count as full",
    )


def work_with(config: Config, url: str, index: DatasetIndex) -> Work:
    """The work of a run on a prepared dataset."""
    split = index.splits["train"]
    steps = config.train.steps
    if steps is None and config.train.epochs is not None:
        steps = math.ceil(config.train.epochs * split.rows / config.train.global_batch_size)
    return Work(
        steps=steps,
        rows=config.train.global_batch_size,
        tokens_per_row=split.tokens / max(1, split.rows),
        supervised_share=split.supervised_tokens / max(1, split.tokens),
        origin=f"the prepared dataset {url}",
    )


def find_dataset(config: Config) -> tuple[str, DatasetIndex] | None:
    """The dataset of the run's newest commit, else the one that `prepare` would find done; None where there is none.

    What cannot be read on the way (a corpus that is elsewhere, a model that is not in the bucket yet) means none.
    """
    try:
        newest = checkpoint.latest(RunLayout(config.storage.root, config.name))
        url = newest.dataset_url if newest else _prepared_url(config)
        return (url, load_index(url)) if url else None
    except ScaletrainError:
        return None


def _prepared_url(config: Config) -> str | None:
    from scaletrain.data import identity
    from scaletrain.data.formats import list_files
    from scaletrain.data.leakage import load_leakage
    from scaletrain.model.build import load_index as load_model_index
    from scaletrain.model.build import pretrained_url
    from scaletrain.model.store import is_published

    root = config.storage.root
    if config.model.source is None:  # a random start's name has a hash of what its tokenizer is trained on
        return None
    source = sources.locate(config.model.source, config.model.revision)
    if not storage.list_folders(storage.join(root, "data")) or _takes_long_to_hash(source):
        return None
    model_url = pretrained_url(source, root)
    if not is_published(model_url):
        return None
    url = dataset_url(
        root,
        identity.dataset_id(
            config.data,
            [list_files(corpus) for corpus in config.data.corpora],
            tokenizer_hash=load_model_index(model_url).tokenizer_hash,
            leakage=load_leakage(config.data.leakage),
        ),
    )
    return url if storage.exists(storage.join(url, INDEX)) else None


def _takes_long_to_hash(source: sources.Source) -> bool:
    """Whether a model's name in the bucket, a hash of its local files, would take longer than a plan may."""
    if source.kind == "hub" or not storage.is_local(source.location):
        return False
    return sum(file.size_bytes for file in source.files()) > _MOST_HASHED_BYTES

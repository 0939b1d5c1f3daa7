"""Prepare a dataset: raw corpora -> cleaned, tokenised, packed, shuffled shards in the bucket, once.

What comes out depends on what goes in and on nothing else: not on the number of machines, nor on the order in which
tasks end. Conversations are ordered by a hash of what they say; hashes also decide what is held out (splits.py) and
what a mix takes (mixing.py). The dataset's id is a hash of all that determines it; where its index.json exists, there
is nothing to do. That file is written last, and an interrupted preparation is overwritten by the next, which reuses the
documents that were kept until then (incremental.py).

Limits: the tokenised documents lie on the driver's local disk (5 bytes a token, and up to 2.1 kB a conversation for
what finds near-duplicates) until they are packed, and the driver holds some 500 bytes of memory for each conversation
and each piece of one: 10 million conversations take a few GB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scaletrain import layout, storage
from scaletrain.config import Config
from scaletrain.config_data import DataSection
from scaletrain.data import identity, shards
from scaletrain.data.cleaning import load_steps
from scaletrain.data.corpus_texts import corpus_texts
from scaletrain.data.counting import (
    annotation_statistics,
    corpus_statistics,
    flows,
    leakage_statistics,
    split_statistics,
    step_statistics,
)
from scaletrain.data.dataset_files import ABANDONED_AFTER_S
from scaletrain.data.description import write_description
from scaletrain.data.documents import Documents, Ints, collect
from scaletrain.data.duplicates import drop_duplicates
from scaletrain.data.formats import SourceFile, check_settings, hold_pairs, list_files
from scaletrain.data.identity import corpus_names, settings_of
from scaletrain.data.incremental import read_documents
from scaletrain.data.leakage import Leakage, load_leakage
from scaletrain.data.mixing import NOT_SAMPLED, mix
from scaletrain.data.row_plan import SplitPlan, build_rows, plan_split
from scaletrain.data.shards import DatasetIndex, SplitInfo
from scaletrain.data.splits import assign_splits
from scaletrain.data.statistics import SplitStatistics, Statistics, check_corpora, check_rows
from scaletrain.errors import Problems
from scaletrain.log import get_logger, progress
from scaletrain.model import build
from scaletrain.scratch import scratch_folder

log = get_logger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Where the dataset lies, and the model whose tokenizer it was made with."""

    dataset_url: str
    model_url: str


def prepare(
    config: Config, *, use_ray: bool = True, check_model: Callable[[str], None] = lambda model_url: None
) -> Prepared:
    """Put the model and the dataset that a configuration describes into the bucket, if they are not there yet.

    `use_ray=False` does the same in this process. With Ray, the cluster that the caller is connected to does the work,
    or the one that RAY_ADDRESS names, or this machine. `check_model` may refuse the model, by its URL, before any data
    is read for it. Raises ConfigError, DataError, ModelError, StorageError, and ClusterError where Ray fails, or no
    machine comes within `scaling.wait_minutes`.
    """
    section, root = config.data, config.storage.root
    _check(section)
    files = [list_files(corpus) for corpus in section.corpora]
    leakage = load_leakage(section.leakage)
    model_url = build.materialise(config.model, root=root, seed=config.seed, corpus_texts=lambda: corpus_texts(section))
    build.check_seq_len(model_url, section.seq_len)
    check_model(model_url)
    tokenizer_hash = build.load_index(model_url).tokenizer_hash
    dataset_id = identity.dataset_id(section, files, tokenizer_hash=tokenizer_hash, leakage=leakage)
    dataset_url = layout.dataset_url(root, dataset_id)
    if storage.exists(storage.join(dataset_url, shards.INDEX)):
        log.info("%s is prepared already", dataset_url)
        return Prepared(dataset_url, model_url)

    log.info("preparing %s", dataset_url)
    statistics = _make(
        config,
        files,
        leakage,
        model_url=model_url,
        tokenizer_hash=tokenizer_hash,
        dataset_id=dataset_id,
        use_ray=use_ray,
    )
    for line in statistics.summary():
        log.info("%s", line)
    return Prepared(dataset_url, model_url)


def _make(
    config: Config,
    files: Sequence[Sequence[SourceFile]],
    leakage: Leakage | None,
    *,
    model_url: str,
    tokenizer_hash: str,
    dataset_id: str,
    use_ray: bool,
) -> Statistics:
    """Make the dataset, whatever may be there of it."""
    section, dataset_url = config.data, layout.dataset_url(config.storage.root, dataset_id)
    tokenizer = build.load_tokenizer(model_url, chat_template=section.chat_template, thinking=section.thinking)
    with scratch_folder("prepare") as folder:
        tables = read_documents(
            config, files, leakage, tokenizer, tokenizer_hash=tokenizer_hash, folder=folder, use_ray=use_ray
        )
        with progress(unit="conversations") as display:
            task = display.add_task("reading and tokenising", total=None)
            documents = collect(tables, folder / "documents.arrow", on_rows=lambda count: display.advance(task, count))
        inside = documents.within_limits([corpus.limit for corpus in section.corpora])
        documents, members = _select(documents, documents.kept(inside), section)
        corpora = corpus_statistics(
            documents,
            inside,
            members["train"],
            names=corpus_names(section),
            num_files=[len(each) for each in files],
        )
        check_corpora(corpora, max_bad_rows=section.max_bad_rows)
        splits, of_splits, plans = _write_splits(
            documents, members, section, dataset_url=dataset_url, pad_token_id=tokenizer.pad_token_id
        )
        statistics = Statistics(
            dataset_id,
            section.seq_len,
            corpora,
            of_splits,
            flows=flows(documents, inside, names=corpus_names(section)),
            steps=step_statistics(documents, inside),
            annotations=annotation_statistics(documents, inside, names=corpus_names(section)),
            leakage=leakage_statistics(documents, inside, leakage),
            settings=settings_of(section),
        )
        description = write_description(documents, inside, plans, statistics, dataset_url, tokenizer=tokenizer)
    index = DatasetIndex(
        version=shards.FORMAT_VERSION,
        dataset_id=dataset_id,
        seq_len=section.seq_len,
        row_group_rows=shards.row_group_rows(section.seq_len),
        pad_token_id=tokenizer.pad_token_id,
        corpora=corpus_names(section),
        tokenizer=tokenizer_hash,
        splits=splits,
        files=description,
        pairs=hold_pairs(section.corpora),
    )
    _commit(dataset_url, index)
    return statistics


def _check(section: DataSection) -> None:
    """Raise ConfigError with all that is wrong with the corpora's settings and the cleaning steps."""
    problems = Problems()
    with problems.collecting():
        check_settings(section.corpora)
    with problems.collecting():
        load_steps(section)
    problems.raise_any()


def _select(documents: Documents, kept: Ints, section: DataSection) -> tuple[Documents, dict[str, Ints]]:
    """Choose what is trained on and what is held out; returns the documents with the reasons of the others, and both.

    A training conversation that the mix repeats is there several times.
    """
    documents = drop_duplicates(documents, kept, duplicates=section.duplicates, similarity=section.similarity)
    members = assign_splits(
        documents,
        kept[documents.has_document[kept]],
        validation=section.validation,
        by_author=section.hold_out == "author",
    )
    mixed = mix(documents, members["train"], section)
    documents = documents.left_out(np.setdiff1d(members["train"], mixed), NOT_SAMPLED)
    return documents, members | {"train": mixed}


def _write_splits(
    documents: Documents, members_of: dict[str, Ints], section: DataSection, *, dataset_url: str, pad_token_id: int
) -> tuple[dict[str, SplitInfo], dict[str, SplitStatistics], dict[str, SplitPlan]]:
    """Pack and write the shards of the splits; both are there, though one may be empty."""
    seq_len, pairs = section.seq_len, hold_pairs(section.corpora)
    plans: dict[str, SplitPlan] = {}
    splits: dict[str, SplitInfo] = {}
    statistics: dict[str, SplitStatistics] = {}
    for name, members in members_of.items():
        plan = plans[name] = plan_split(documents, members, seq_len=seq_len, pairs=pairs)
        rows = build_rows(plan, documents, seq_len=seq_len, pad_token_id=pad_token_id)
        with progress(unit="rows") as display:
            tracked = display.track(rows, total=len(plan.rows), description=f"writing {name}")
            splits[name] = shards.write_split(tracked, dataset_url, split=name, seq_len=seq_len)
        statistics[name] = split_statistics(documents, plan, splits[name], seq_len=seq_len)
    check_rows(statistics["train"], seq_len=seq_len)
    return splits, statistics, plans


def _commit(dataset_url: str, index: DatasetIndex) -> None:
    """Remove what an interrupted preparation may have left over, and write index.json last.

    Shards of the same name were overwritten with the same bytes, so that two preparations at once do no harm.
    """
    names = [shard.name for split in index.splits.values() for shard in split.shards]
    names += [file.name for file in index.files]
    ours = {storage.join(dataset_url, name) for name in (*names, shards.INDEX)}
    for found in storage.list_objects(dataset_url):
        if found.url not in ours:
            storage.remove(found.url)
    storage.remove_half_written(dataset_url, unchanged_for_s=ABANDONED_AFTER_S)
    shards.write_index(dataset_url, index)

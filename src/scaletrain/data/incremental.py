"""The documents of a configuration: those that an earlier preparation kept, and the others made anew, and kept.

What comes out is the same rows whatever was kept. Adding a corpus, or changing what is done with documents (row length,
validation, mix), leaves the parts of the other corpora as they are; so does a crash what was whole by then.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from scaletrain import layout, ray_cluster, storage
from scaletrain.config import Config
from scaletrain.data.dataset_files import ABANDONED_AFTER_S
from scaletrain.data.document_store import DocumentKeeper, read_kept
from scaletrain.data.formats import SourceFile
from scaletrain.data.identity import part_keys
from scaletrain.data.leakage import Leakage
from scaletrain.data.parts import Part, cut_into_parts, ends_of_parts
from scaletrain.data.tokenise import tokenise, wait_for_cpus
from scaletrain.log import get_logger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = get_logger(__name__)


def read_documents(
    config: Config,
    files: Sequence[Sequence[SourceFile]],
    leakage: Leakage | None,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    tokenizer_hash: str,
    folder: Path,
    use_ray: bool,
) -> Iterator[pa.Table]:
    """Yield tables of DOCUMENTS, a row for every row of the corpora; `folder` holds parts that are not whole yet.

    With `use_ray`, Ray is needed only where something has to be made. Raises what `tokenise` raises.
    """
    section = config.data
    parts = cut_into_parts(files, section.corpora)
    if not section.reuse:
        for table in _make(parts, config, tokenizer, leakage, use_ray=use_ray):
            yield table.filter(pa.array(~ends_of_parts(table)))
        return
    url = layout.documents_url(config.storage.root)
    keys = part_keys(parts, section, tokenizer_hash=tokenizer_hash, leakage=leakage)
    storage.remove_half_written(url, unchanged_for_s=ABANDONED_AFTER_S)
    reused: set[int] = set()
    num_rows = 0
    for number, tables in read_kept(url, parts, keys, folder=folder):
        reused.add(number)
        for table in tables:
            num_rows += len(table)
            yield table
    if reused:
        log.info(
            "reused %s of %s parts of the corpora (%s conversations)",
            *map("{:,}".format, (len(reused), len(parts), num_rows)),
        )
    missing = [number for number in range(len(parts)) if number not in reused]
    if missing:
        new = [parts[number] for number in missing]
        with DocumentKeeper(url, new, [keys[number] for number in missing], folder=folder) as keeper:
            for table in _make(new, config, tokenizer, leakage, use_ray=use_ray):
                yield keeper.take(table)


def _make(
    parts: Sequence[Part],
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    leakage: Leakage | None,
    *,
    use_ray: bool,
) -> Iterator[pa.Table]:
    """Read, clean and tokenise."""
    with ray_cluster.connected() if use_ray else nullcontext():
        if use_ray:
            wait_for_cpus(wait_s=60 * config.scaling.wait_minutes)
        yield from tokenise(
            config.data, parts, storage_section=config.storage, tokenizer=tokenizer, leakage=leakage, use_ray=use_ray
        )

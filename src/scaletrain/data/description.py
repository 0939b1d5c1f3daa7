"""What is written beside the shards, for people to see what the dataset is: provenance, stats.json, report.html."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scaletrain.data.dataset_files import FileInfo, write_file
from scaletrain.data.documents import Documents
from scaletrain.data.provenance import write_provenance
from scaletrain.data.report import REPORT, report_html
from scaletrain.data.report_samples import choose_samples
from scaletrain.data.row_plan import SplitPlan
from scaletrain.data.statistics import STATISTICS, Statistics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def write_description(
    documents: Documents,
    inside: npt.NDArray[np.bool_],
    plans: Mapping[str, SplitPlan],
    statistics: Statistics,
    dataset_url: str,
    *,
    tokenizer: "PreTrainedTokenizerBase",
) -> tuple[FileInfo, ...]:
    """Write all three, of the rows `inside` the limits; returns what the index says of them. Raises StorageError."""
    names = [corpus.name for corpus in statistics.corpora]
    samples = choose_samples(documents, inside, names=names, tokenizer=tokenizer)
    return (
        *write_provenance(documents, inside, plans, dataset_url, corpora=names),
        write_file(dataset_url, STATISTICS, statistics.to_json()),
        write_file(dataset_url, REPORT, report_html(statistics, samples)),
    )

"""What a run was made of: the dataset and the model that its newest commit names.

A run keeps to them for as long as it lasts, whatever becomes of the raw corpora and of the hub. They lie beside the
run, also after it was copied with them to another bucket, or where the commit says.
"""

from scaletrain import storage
from scaletrain.checkpoint import Manifest
from scaletrain.data.prepare import Prepared
from scaletrain.data.shards import INDEX
from scaletrain.layout import RunLayout, dataset_url, model_url


def inputs_of(run: RunLayout, newest: Manifest) -> Prepared:
    """Where the dataset and the model of a commit are now; raises StorageError."""
    return Prepared(
        dataset_url=_found(newest.dataset_url, dataset_url(run.root, _name(newest.dataset_url))),
        model_url=_found(newest.model_url, model_url(run.root, _name(newest.model_url))),
    )


def is_there(inputs: Prepared) -> bool:
    """Whether both were written to their ends."""
    return all(storage.exists(storage.join(url, INDEX)) for url in (inputs.dataset_url, inputs.model_url))


def _found(stated: str, beside: str) -> str:
    return beside if storage.exists(storage.join(beside, INDEX)) else stated


def _name(url: str) -> str:
    return url.rsplit("/", 1)[-1]

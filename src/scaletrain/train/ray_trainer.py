"""Ray Train's trainer as it is used here, and where it keeps its notes."""

import os
from typing import Any

from ray.train.torch import TorchTrainer

from scaletrain import storage


class Trainer(TorchTrainer):
    """A `TorchTrainer` whose workers are given no Ray datasets, and that starts nothing for them.

    Ray would start a process of some 150 MB beside the driver for each attempt, and call every worker once more before
    it may begin.
    """

    def _create_default_callbacks(self) -> list[Any]:
        """Ray has no setting for it; where a later version has no such method or callback, all is as Ray does it."""
        found: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]  # that of Ray Train 1 has no such method
        return [each for each in found if type(each).__name__ != "DatasetsCallback"]


def ray_storage(url: str) -> dict[str, Any]:
    """Arguments of RunConfig: where Ray Train keeps its own few notes of an attempt; every node must reach it."""
    if storage.is_local(url):
        return {"storage_path": str(storage.local_path(url).absolute())}
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    # gcsfs would ask each bucket first whether it is one of the hierarchical kind, which takes a minute to time out
    # where nobody knows the question.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    filesystem, path = fsspec.core.url_to_fs(url)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem))}  # type: ignore[abstract]

"""scaletrain's two readers, as training has them: behind a thread that works two steps ahead.

    python benchmarks/streamed/ours.py '{"task": "paced", "arm": "scaletrain, by Ray Data", ...}'

What a run has anyway before it reads is not counted: the imports, and a Ray that is connected.
"""

import json
import logging
import os
import sys
from collections.abc import Generator

import boto3  # noqa: F401 -- imported by storage where it is used, which is not to be measured
import numpy as np
import pyarrow.parquet  # noqa: F401 -- as boto3, by the reader
from consumer import ROWS_A_STEP, Reading, Step, main

from scaletrain import storage
from scaletrain.data.loader import ReadPlan, steps_local, steps_ray
from scaletrain.data.shards import load_index
from scaletrain.train.ahead import Ahead

MICRO_BATCH_SIZE = 8
RAY, LOCAL = "scaletrain, by Ray Data", "scaletrain, in process"


def read(reading: Reading) -> Generator[Step, None, None]:
    """Read the steps from the first one on."""
    storage.configure(reading.url, {"endpoint_url": reading.endpoint_url})
    steps = steps_ray if reading.arm == RAY else steps_local
    plan = ReadPlan(
        dataset_url=reading.url,
        index=load_index(reading.url),
        seed=reading.seed,
        global_batch_size=ROWS_A_STEP,
        micro_batch_size=MICRO_BATCH_SIZE,
        world_size=1,
        rank=0,
        first_step=0,
        stop_step=1_000_000,
    )
    with Ahead(steps(plan)) as batches:
        for batch in batches:
            parts = batch.micro_batches
            yield Step(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("input_ids", "labels")))


def start_ray() -> None:
    """A Ray of this machine that says nothing; it ends with this process."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    logging.getLogger("ray.data").setLevel(logging.ERROR)


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if json.loads(sys.argv[1])["arm"] == RAY:
        start_ray()
    main({RAY: read, LOCAL: read})

"""A peer of benchmarks/near_duplicates.py: datatrove's four MinHash stages, one process, in its own environment.

    python benchmarks/peers/near_duplicates_datatrove.py TEXTS.jsonl FOLDER WORDS BANDS ROWS

TEXTS.jsonl has {"id", "text"} rows. Prints a line of JSON: the ids kept, wall and CPU seconds without the imports. The
stages are those of datatrove's own example (examples/minhash_deduplication.py).
"""

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main() -> None:
    """Run the four stages and tell what is left."""
    texts, folder = Path(sys.argv[1]), Path(sys.argv[2])
    words, bands, rows = map(int, sys.argv[3:])
    config = MinhashConfig(
        n_grams=words, num_buckets=bands, hashes_per_bucket=rows, hash_config=HashConfig(hash_fc="xxhash", precision=64)
    )
    signatures, buckets, removed, output = (str(folder / name) for name in ("signatures", "buckets", "removed", "out"))

    def read() -> JsonlReader:
        return JsonlReader(str(texts.parent), glob_pattern=texts.name)

    stages = [
        ([read(), MinhashDedupSignature(signatures, config)], 1),
        ([MinhashDedupBuckets(signatures, buckets, config=config, only_dedup_in_index=False)], bands),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([read(), MinhashDedupFilter(removed), JsonlWriter(output, compression=None)], 1),
    ]
    start, cpu_start = time.perf_counter(), time.process_time()
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"logs-{number}")).run()
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    lines = [line for path in sorted(Path(output).rglob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    print(json.dumps({"kept": [json.loads(line)["id"] for line in lines], "wall_s": wall_s, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()

"""A peer of benchmarks/near_duplicates.py: text-dedup's MinHash command, one process, in its own environment.

    python benchmarks/peers/near_duplicates_text_dedup.py TEXTS.jsonl FOLDER WORDS BANDS ROWS

TEXTS.jsonl has {"id", "text"} rows. Prints a line of JSON: the ids kept, wall and CPU seconds without the imports. Its
faster hash (xxh3) is taken.
"""

import json
import os
import sys
import time
from pathlib import Path

import datasets
from text_dedup.minhash import main as deduplicate


def main() -> None:
    """Run the command and tell what is left."""
    texts, folder = Path(sys.argv[1]), Path(sys.argv[2])
    words, bands, rows = map(int, sys.argv[3:])
    options = {
        "path": "json",
        "data_files": str(texts),
        "split": "train",
        "cache_dir": str(folder / "cache"),
        "output": str(folder / "out"),
        "column": "text",
        "ngram": words,
        "min_length": words,
        "num_perm": bands * rows,
        "b": bands,
        "r": rows,
        "hash_func": "xxh3",
        "num_proc": 1,
    }
    start, cpu_start = time.perf_counter(), time.process_time() + children_s()
    deduplicate([f"--{name}={value}" for name, value in options.items()], standalone_mode=False)
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() + children_s() - cpu_start
    kept = datasets.load_from_disk(options["output"])["id"]
    print(json.dumps({"kept": list(kept), "wall_s": wall_s, "cpu_s": cpu_s}))


def children_s() -> float:
    """CPU seconds of processes that have ended below this one."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()

"""Peers of benchmarks/near_duplicates.py: rensa's and datasketch's MinHash LSH, one process, in their own environment.

    python benchmarks/peers/near_duplicates_libraries.py TEXTS.jsonl rensa|datasketch WORDS BANDS ROWS

TEXTS.jsonl has {"id", "text"} rows. Prints a line of JSON: the ids kept, wall and CPU seconds without the imports. Each
text is looked up among those kept before it, and kept where nothing is found, as both projects' documentation does it.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import datasketch
import rensa

WORD = re.compile(r"\w+")


def main() -> None:
    """Read, look up and insert one text after the other, and tell what is left."""
    library = sys.argv[2]
    words, bands, rows = map(int, sys.argv[3:])
    start, cpu_start = time.perf_counter(), time.process_time()
    texts = [json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()]
    is_new = with_rensa(bands, rows) if library == "rensa" else with_datasketch(bands, rows)
    kept = [each["id"] for number, each in enumerate(texts) if is_new(number, shingles(each["text"], words))]
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    print(json.dumps({"kept": kept, "wall_s": wall_s, "cpu_s": cpu_s}))


def shingles(text: str, words: int) -> list[str]:
    """Runs of words, joined."""
    found = WORD.findall(text.lower())
    return [" ".join(found[i : i + words]) for i in range(len(found) - words + 1)]


def with_rensa(bands: int, rows: int) -> Callable[[int, list[str]], bool]:
    """R-MinHash and its LSH."""
    index = rensa.RMinHashLSH(0.0, bands * rows, bands)

    def is_new(number: int, runs: list[str]) -> bool:
        minhash = rensa.RMinHash(bands * rows, 42)
        minhash.update(runs)
        if index.query(minhash):
            return False
        index.insert(number, minhash)
        return True

    return is_new


def with_datasketch(bands: int, rows: int) -> Callable[[int, list[str]], bool]:
    """MinHash and MinHashLSH."""
    index = datasketch.MinHashLSH(num_perm=bands * rows, params=(bands, rows))

    def is_new(number: int, runs: list[str]) -> bool:
        minhash = datasketch.MinHash(bands * rows)
        minhash.update_batch([run.encode() for run in runs])
        if index.query(minhash):
            return False
        index.insert(number, minhash, check_duplication=False)
        return True

    return is_new


if __name__ == "__main__":
    main()

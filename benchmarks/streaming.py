"""Streaming to training from a bucket 30 ms away, beside MosaicML Streaming, LitData, HF datasets and WebDataset.

    python -m venv PEERS && PEERS/bin/pip install torch==2.13.0
    PEERS/bin/pip install mosaicml-streaming litdata datasets torchdata webdataset s3fs boto3
    python benchmarks/streaming.py --peers PEERS/bin/python [--write benchmarks/results/streaming.md]

The content is chitchat's conversations, tokenised with the quickstart's model and packed into rows of 1,024 tokens,
repeated to `--rows`; all arms read the same rows (input_ids and labels), in an order that their seed shuffles, as one
rank that has 32 rows a step. Each reading is a new process with an empty cache:

    first step   from the reader's making to its first step: its index, files and worker processes
    M tokens/s   pulled as fast as it goes, without the first step
    waiting      of a rank that takes 1 M tokens/s (it sleeps as long as a step's tokens take): the share of time, after
                 the first step, that it waits for the next one
    longest      the longest of these waits
    CPU          of the paced reading, after the first step: of the process and all below it

scaletrain gives each row's positions, documents and corpora besides, compares checksums, and shuffles over 2,048 row
groups; the configurations of the peers are in benchmarks/streamed/peers.py. The server keeps objects in memory and runs
on the same cores (tests/bucket_sink.py: moto copies a whole object for every range of it that is asked for). Without
`--peers` scaletrain is measured alone. Takes some fifteen minutes with them, and 1 GB of memory and of the temporary
folder.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

import measure
from packing import tokenised
from scaletrain import storage
from scaletrain.data.row_plan import build_rows, plan_split
from scaletrain.data.shards import FORMAT_VERSION, DatasetIndex, Row, row_group_rows, write_index, write_split

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bucket_servers import environment_of, fast_s3_process, make_bucket

SEQ_LEN = 1024
LATENCY_S = 0.03
URL = "s3://benchmark"
RAY, LOCAL = "scaletrain, by Ray Data", "scaletrain, in process"
PEERS = {
    "MosaicML Streaming": "mosaicml-streaming",
    "LitData": "litdata",
    "HF datasets": "datasets",
    "WebDataset": "webdataset",
}
Readings = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Setting:
    """Where the arms find the content; `peers` is their Python, '' for none."""

    folder: Path
    endpoint_url: str
    peers: str
    num_rows: int
    steps: int


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help="the Python of the peers' environment (default: none)")
    parser.add_argument("--arms", nargs="+", choices=[LOCAL, *PEERS], help="beside Ray Data's (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each arm reads (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=16_384, help="rows of the content (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="of each reading (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    arguments = parser.parse_args()
    head = ["# Streaming to training", measure.machine("ray", "pyarrow", "boto3", "chitchat-dataset")]
    if arguments.peers:
        head.append(f"Peers: {versions(arguments.peers)}.")
    with (
        tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder,
        fast_s3_process(latency_s=LATENCY_S) as endpoint_url,
    ):
        os.environ.update(environment_of(endpoint_url), S3_ENDPOINT_URL=endpoint_url)
        make_bucket(URL, endpoint_url)
        storage.configure(URL, {"endpoint_url": endpoint_url})
        setting = Setting(Path(folder), endpoint_url, arguments.peers, arguments.rows, arguments.steps)
        write_content(setting)
        arms = [RAY, *(arguments.arms or [LOCAL, *(PEERS if arguments.peers else ())])]
        readings = interleave(setting, arms, rounds=arguments.rounds)
    measure.publish("\n\n".join([*head, report(readings, setting, arguments.rounds)]), arguments.write)


# ---- content -------------------------------------------------------------------------------------------------------


def write_content(setting: Setting) -> None:
    """Put the same rows into the bucket in every format."""
    documents = tokenised(setting.folder)
    plan = plan_split(documents, documents.kept(documents.within_limits([None])), seq_len=SEQ_LEN)
    once = list(build_rows(plan, documents, seq_len=SEQ_LEN, pad_token_id=0))
    rows = list(itertools.islice(itertools.cycle(once), setting.num_rows))
    write_ours(rows)
    if not setting.peers:
        return
    content, out = setting.folder / "content.npz", setting.folder / "formats"
    np.savez(content, **{name: np.stack([getattr(row, name) for row in rows]) for name in ("input_ids", "labels")})
    out.mkdir()
    script = Path(__file__).parent / "streamed" / "peers.py"
    subprocess.run([setting.peers, str(script), "write", str(content), str(out)], check=True)
    content.unlink()
    for path in sorted(each for each in out.rglob("*") if each.is_file()):
        storage.upload_file(path, storage.join(URL, str(path.relative_to(out))))
        path.unlink()


def write_ours(rows: list[Row]) -> None:
    """Write the shards and the index that `scaletrain prepare` would."""
    url = f"{URL}/ours"
    split = write_split(rows, url, split="train", seq_len=SEQ_LEN)
    corpora, groups = ("chitchat",), row_group_rows(SEQ_LEN)
    write_index(url, DatasetIndex(FORMAT_VERSION, "streaming", SEQ_LEN, groups, 0, corpora, "none", {"train": split}))


# ---- reading -------------------------------------------------------------------------------------------------------


def interleave(setting: Setting, arms: list[str], *, rounds: int) -> Readings:
    """Read with every arm once a round, in alternating order, and with the first one twice."""
    order = [(arm, arm) for arm in arms] + [(arms[0] + measure.AGAIN, arms[0])]
    readings: Readings = {name: [] for name, _ in order}
    for number in range(rounds):
        for name, arm in order if number % 2 == 0 else order[::-1]:
            fast, paced = (read(setting, arm, task=task, seed=number) for task in ("fast", "paced"))
            readings[name].append({**paced, "tokens_per_s": fast["tokens_per_s"], "first_s": fast["first_s"]})
            sys.stderr.write(f"{name}: {readings[name][-1]}\n")
    return readings


def read(setting: Setting, arm: str, *, task: str, seed: int) -> dict[str, float]:
    """Read in a new process with an empty cache."""
    ours = arm in (RAY, LOCAL)
    script = Path(__file__).parent / "streamed" / ("ours.py" if ours else "peers.py")
    with tempfile.TemporaryDirectory(dir=setting.folder, prefix="cache-") as cache:
        reading = {
            "arm": arm,
            "task": task,
            "url": f"{URL}/ours" if ours else URL,
            "endpoint_url": setting.endpoint_url,
            "cache": f"{cache}/{task}",
            "num_rows": setting.num_rows,
            "steps": setting.steps,
            "seed": seed,
        }
        command = [sys.executable if ours else setting.peers, str(script), json.dumps(reading)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            first, first_cpu_s = told_by(process)
            rest, cpu_s = told_by(process)
    return {**first, **rest, "cpu_s_per_m_tokens": 1e6 * (cpu_s - first_cpu_s) / rest["tokens"]}


def told_by(process: "subprocess.Popen[str]") -> tuple[dict[str, float], float]:
    """What a reader tells next, and the CPU seconds that it and all below it have taken, which is let go on then."""
    assert process.stdin is not None and process.stdout is not None
    while not (line := process.stdout.readline()).startswith("{"):
        if not line:
            sys.exit(f"a reader failed: {process.args}")
    reader = psutil.Process(process.pid)
    cpu_s = 0.0
    for each in (reader, *reader.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            cpu_s += times.user + times.system + times.children_user + times.children_system
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(line), cpu_s


# ---- report --------------------------------------------------------------------------------------------------------


def versions(python: str) -> str:
    """The peers' versions, and those of what they stand on."""
    names = [*PEERS.values(), "torch", "torchdata", "s3fs"]
    code = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {names}))"
    return subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def report(readings: Readings, setting: Setting, rounds: int) -> str:
    """The table, and who is faster."""
    header = ["", "first step, s", "M tokens/s", "times scaletrain", "waiting, %", "longest, ms", "CPU s per M tokens"]
    table = []
    for name, of_arm in readings.items():
        of = {what: [each[what] for each in of_arm] for what in of_arm[0]}
        reference = [each["tokens_per_s"] for each in readings[RAY]]
        table.append(
            [
                name,
                f"{measure.interval(of['first_s']):.2f}",
                f"{measure.interval([each / 1e6 for each in of['tokens_per_s']]):.2f}",
                f"{measure.ratio(of['tokens_per_s'], reference):.2f}",
                f"{measure.interval([100 * each for each in of['waiting']]):.2f}",
                f"{measure.interval([1e3 * each for each in of['longest_wait_s']]):.0f}",
                f"{measure.interval(of['cpu_s_per_m_tokens']):.2f}",
            ]
        )
    return (
        f"{setting.num_rows:,} rows of {SEQ_LEN:,} tokens; each request waits {1e3 * LATENCY_S:.0f} ms; "
        f"{setting.steps} steps a reading, {rounds} rounds in alternating order: medians with 95% intervals. Waiting, "
        "its longest and CPU are those of a rank that takes 1 M tokens/s. The A/A control is scaletrain over itself, "
        f"(again).\n\n{measure.markdown_table(header, table)}\n\n{' '.join(remarks(readings))}"
    )


def remarks(readings: Readings) -> Iterator[str]:
    """Say which peers are ahead, beyond what the same arm differs from itself by, and why that is."""

    def median(name: str, what: str) -> float:
        return float(np.median([each[what] for each in readings[name]]))

    peers = [name for name in PEERS if name in readings]
    for what, called, better in (
        ("first_s", "to the first step", -1),
        ("tokens_per_s", "pulled as fast as it goes", 1),
        ("waiting", "waiting at 1 M tokens/s", -1),
        ("cpu_s_per_m_tokens", "in CPU", -1),
    ):
        ours = [median(name, what) for name in (RAY, RAY + measure.AGAIN)]
        ahead = [name for name in peers if all(better * (median(name, what) - one) > 0 for one in ours)]
        if peers:
            yield f"Ahead of scaletrain by Ray Data, {called}: {', '.join(ahead) or 'none'}."
    yield (
        "What scaletrain pays for: rows are shuffled over a whole shard, so it asks for each 8 rows apart, where peers "
        "fetch a file of 1,024 rows at once and shuffle among the files and rows that they hold; every row group is "
        "checked, decoded and spread into five arrays of a row; by Ray Data it goes through the object store besides. "
        "Peers pay at the start for worker processes and the first whole files."
    )


if __name__ == "__main__":
    main()

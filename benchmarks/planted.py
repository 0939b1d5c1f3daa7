"""What a preparation finds of what was planted: duplicates, leaks, personal data, listed words; and what it should not.

    python benchmarks/planted.py [--conversations 4000] [--write benchmarks/results/planted.md]

Chitchat's dialogues of 40 to 1,000 words are the ground: those without a listed word, an @ or four digits in a row,
looked for as plain text, so that what is planted is all there is. A seed deals them out, a tenth each, to

    equal       a copy, equal
    alike       a copy with another word in 20 to 200, in capitals, with a turn more, or without its end; a pair counts
                where the two share four fifths of their runs of three words, counted without any sketch
    rewritten   a copy that says it in other words: every third to eighth is another
    leaked      an item of a benchmark in a turn; other case, other punctuation, Chinese too
    personal    a value with valid check digits in a sentence of eight kinds (tests/data/personal_data.py)
    lookalike   a date, an amount, a version, a number with wrong check digits in such a sentence
    toxic       a listed word in a sentence of its language, three of the seven without spaces between words
    harmless    a word of which a listed one is a part

and the others stay as they are. All go through one preparation in this process; the provenance tells what became of
each. Takes about a minute.
"""

import argparse
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import measure
from near_duplicates import SIMILARITY, jaccard
from scaletrain.config import Config
from scaletrain.config_data import Corpus
from scaletrain.data.formats import read_conversations
from scaletrain.data.prepare import prepare
from scaletrain.data.provenance import read_provenance
from scaletrain.data.shards import load_index

sys.path.append(str(Path(__file__).parents[1] / "tests" / "data"))

KINDS = ("email", "phone", "card", "iban", "ip_address", "us_ssn", "chinese_id", "api_key")
# A listed word of each language and a sentence for it; of the last three the scripts have no spaces between words.
TOXIC = {
    "English": ("bastard", "You {}, leave me alone!"),
    "German": ("arschloch", "So ein {}."),
    "French": ("connard", "Quel {} !"),
    "Russian": ("сволочь", "Он просто {}, вот и всё."),
    "Chinese": ("王八蛋", "你这个{}快走开"),
    "Japanese": ("くそやろう", "あの{}めと言った"),
    "Thai": ("ไอ้สัตว์", "มึงมัน{}จริงๆ"),
}
HARMLESS = ("bastardise", "Arschlochkarte", "connardise", "сволочью", "un-bastardly")
ITEMS = (
    "A baker sells {} loaves in the morning and half as many in the afternoon; how many loaves is that in one day?",
    "If a train leaves the town of {} at noon and drives for seven hours, when does it come to the harbour at last?",
    "小明有{}个苹果，他把其中的一半分给了三个朋友，每个朋友得到了多少个苹果，请写出计算过程",
)
DUPLICATE, LEAKED, PERSONAL, PROFANITY = (
    ("duplicate", "near_duplicate"),
    ("leaked",),
    ("personal_data",),
    ("profanity",),
)
Talk = list[str]


@dataclass(frozen=True)
class Row:
    """A conversation as it is written; `kind` is what was planted, `twin` the id of what it is a copy of."""

    id: str
    turns: Talk
    kind: str = "untouched"
    twin: str = ""


@dataclass(frozen=True)
class Rate:
    """Of rows of one kind, how many were left out for the reasons that it asks for."""

    kind: str
    planted: int
    found: int

    @property
    def share(self) -> float:
        return self.found / max(1, self.planted)


def main() -> None:
    """Plant, prepare, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=4000)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    arguments = parser.parse_args()
    machine = measure.machine("chitchat-dataset", "numpy", "xxhash")
    with tempfile.TemporaryDirectory(prefix="scaletrain-planted-") as folder:
        found, false = measured(ground()[: arguments.conversations], Path(folder))
    measure.publish(f"# Planted rows\n\n{machine}\n\n{report(found, false)}", arguments.write)


def measured(talks: Sequence[Talk], folder: Path, *, seed: int = 5) -> tuple[list[Rate], list[Rate]]:
    """Return what was found of each kind, and for each rule what it left out of the rows that have nothing for it."""
    items = [ITEMS[number % len(ITEMS)].format(100 + number) for number in range(30)]
    rows = plant(talks, items, random.Random(seed))
    reasons = outcomes(rows, items, folder)
    by_id = {row.id: row for row in rows}
    pairs = [row for row in rows if row.kind in ("alike", "rewritten")]
    is_alike = {row.id: jaccard(*map("\n".join, (row.turns, by_id[row.twin].turns))) >= SIMILARITY for row in pairs}
    twins = [row for row in rows if row.kind == "equal" or is_alike.get(row.id)]
    in_pair = {name for row in twins for name in (row.id, row.twin)}

    def rate(kind: str, of: Sequence[Row], wanted: Sequence[str]) -> Rate:
        return Rate(kind, len(of), sum(reasons[row.id] in wanted or reasons.get(row.twin) in wanted for row in of))

    found = [rate("equal conversations", [row for row in twins if row.kind == "equal"], DUPLICATE)]
    found.append(rate("nearly equal conversations", [row for row in twins if row.kind != "equal"], DUPLICATE))
    planted = Counter(row.kind for row in rows)
    for prefix, wanted in (("leaked", LEAKED), ("personal", PERSONAL), ("toxic", PROFANITY)):
        kinds = [kind for kind in planted if kind.split(": ")[0] == prefix]
        found += [rate(kind, [row for row in rows if row.kind == kind], wanted) for kind in kinds]
    false = []
    for prefix, wanted in (("", DUPLICATE), ("leaked", LEAKED), ("personal", PERSONAL), ("toxic", PROFANITY)):
        others = [r for r in rows if (r.id not in in_pair if not prefix else not r.kind.startswith(prefix))]
        false.append(Rate(" or ".join(wanted), len(others), sum(reasons[row.id] in wanted for row in others)))
    for kind, wanted in (("rewritten", DUPLICATE), ("lookalike", PERSONAL), ("harmless", PROFANITY)):
        own = [row for row in rows if row.kind == kind and row.id not in in_pair]
        false.append(
            Rate(f"of these, {kind}: {' or '.join(wanted)}", len(own), sum(reasons[r.id] in wanted for r in own))
        )
    return found, false


def ground(*, max_words: int = 1000) -> list[Talk]:
    """Chitchat's conversations that are neither long nor short, and hold nothing of what is planted."""
    corpus = Corpus.model_validate({"format": "chitchat", "source": "package:chitchat_dataset/dataset.json"})
    talks = {
        "\n".join(turns): turns
        for each in read_conversations(corpus, max_bad_rows=0)
        for turns in [[" ".join(turn.content.split()) for turn in each.turns]]
    }
    listed = [word for word, _ in TOXIC.values()]
    return [
        turns
        for text, turns in talks.items()
        if len(turns) > 1
        and 40 <= len(text.split()) <= max_words
        and not re.search(r"@|\d{4}", text)
        and not any(word in text.lower() for word in listed)
    ]


def plant(talks: Sequence[Talk], items: Sequence[str], rng: random.Random) -> list[Row]:
    """Deal out the conversations; each row has an id of its own."""
    from personal_data import lookalikes, planted

    order = rng.sample(list(talks), len(talks))
    share = max(len(KINDS), len(order) // 10)
    words = [word for talk in order[:200] for turn in talk for word in turn.split()]
    hosts = iter(order)
    rows = [Row(f"plain-{number}", next(hosts)) for number in range(3 * share)]
    copies = {"equal": lambda talk: talk, "alike": lambda talk: changed(talk, rng, words)}
    copies["rewritten"] = lambda talk: rewritten(talk, rng, words, rng.uniform(0.12, 0.35))
    for place, (kind, copy) in enumerate(copies.items()):
        originals = rows[place * share : (place + 1) * share]
        rows += [Row(f"{kind}-{row.id}", copy(row.turns), kind, twin=row.id) for row in originals]
    sentences: dict[str, list[str]] = {"leaked": [disguised(rng.choice(items), rng) for _ in range(share)]}
    sentences |= {f"personal: {kind}": [text for text, _ in planted(kind, count=share // len(KINDS))] for kind in KINDS}
    sentences["lookalike"] = lookalikes(count=share)
    for language, (word, sentence) in TOXIC.items():
        sentences[f"toxic: {language}"] = [sentence.format(word) for _ in range(share // len(TOXIC))]
    sentences["harmless"] = [f"They call it {rng.choice(HARMLESS)}, more or less." for _ in range(share)]
    for kind, texts in sentences.items():
        rows += [Row(f"{kind}-{n}", put_into(next(hosts), text, rng), kind) for n, text in enumerate(texts)]
    return [*rows, *(Row(f"other-{number}", talk) for number, talk in enumerate(hosts))]


def put_into(talk: Talk, sentence: str, rng: random.Random) -> Talk:
    """Say a sentence before, after or within a turn."""
    place = rng.randrange(len(talk))
    parts = talk[place].split(" ")
    parts.insert(rng.randint(0, len(parts)), sentence)
    return [*talk[:place], " ".join(parts), *talk[place + 1 :]]


def disguised(item: str, rng: random.Random) -> str:
    """An item as people quote it."""
    return rng.choice([item, item.upper(), re.sub(r"[;,?，]", " - ", item), f'"{item.lower()}"'])


def changed(talk: Talk, rng: random.Random, words: Sequence[str]) -> Talk:
    """A near-duplicate, mostly."""
    way = rng.randrange(4)
    if way == 0:
        return [turn.upper() for turn in talk]
    if way == 1:
        return [*talk, "ok, thanks, bye!"]
    if way == 2:
        last = talk[-1].split(" ")
        return [*talk[:-1], " ".join(last[: len(last) - len(last) // 2])]
    return rewritten(talk, rng, words, rng.choice([0.005, 0.01, 0.02, 0.05]))


def rewritten(talk: Talk, rng: random.Random, words: Sequence[str], rate: float) -> Talk:
    """Every word becomes another one with some chance."""
    return [" ".join(rng.choice(words) if rng.random() < rate else word for word in turn.split(" ")) for turn in talk]


def outcomes(rows: Sequence[Row], items: Sequence[str], folder: Path) -> Mapping[str, str | None]:
    """Prepare the rows, and return for each the reason for which it was left out."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(rows)))
    (folder / "benchmark.jsonl").write_text("".join(json.dumps({"question": item}) + "\n" for item in items))
    (folder / "words.txt").write_text("".join(f"{word}\n" for word, _ in TOXIC.values()))
    personal = {"mask_personal_data": {"replace": [], "drop": KINDS}}
    config = {
        "name": "planted",
        "storage": {"root": str(folder / "bucket")},
        "model": {"init": "random", "size": {"vocab_size": 1000, "hidden_size": 16, "num_heads": 2}},
        "data": {
            "corpora": [{"format": "messages", "source": str(folder / "rows.jsonl"), "licence": "MIT"}],
            "cleaning": ["fix_unicode", {"check_profanity": {"lists": [str(folder / "words.txt")]}}, personal],
            "leakage": [str(folder / "benchmark.jsonl")],
            "similarity": SIMILARITY,
            "seq_len": 1024,
        },
        "train": {"steps": 1},
    }
    url = prepare(Config.model_validate(config), use_ray=False).dataset_url
    tables = read_provenance(url, load_index(url), columns=["id", "reason"])
    return {row["id"]: row["reason"] for table in tables for row in table.to_pylist()}


def lines(rows: Sequence[Row]) -> Iterator[dict[str, object]]:
    """Rows of the messages format."""
    for row in rows:
        roles = ("user", "assistant")
        yield {
            "id": row.id,
            "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(row.turns)],
        }


def report(found: Sequence[Rate], false: Sequence[Rate]) -> str:
    """Both tables."""
    planted = [[each.kind, f"{each.planted:,}", f"{each.found:,}", f"{each.share:.2%}"] for each in found]
    others = [[each.kind, f"{each.planted:,}", f"{each.found:,}", f"{each.share:.2%}"] for each in false]
    return (
        f"{measure.markdown_table(['planted', 'rows', 'found', 'rate'], planted)}\n\n"
        "What was left out though nothing was planted that the reason could mean; rows in which something else was "
        "planted are among these.\n\n"
        f"{measure.markdown_table(['left out as', 'rows', 'falsely left out', 'rate'], others)}"
    )


if __name__ == "__main__":
    main()

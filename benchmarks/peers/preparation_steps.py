"""What the peers of benchmarks/preparation.py do to a conversation, as one writes it in a script of one's own.

The rules are those of scaletrain's default cleaning: Unicode repaired (ftfy, curly quotes and full-width forms left as
they are) and control characters out, empty turns out, consecutive turns of one speaker joined, conversations too short
or too long out, and those in which user and assistant do not alternate. The rest is as in the examples of the
libraries: the chat template's text, tokens, concatenation and cutting each seq_len tokens.
"""

import functools
import itertools
import time
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ftfy
import psutil

MIN_CHARS, MAX_CHARS, MIN_TURNS = 1, 200_000, 2
CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
CONFIG = ftfy.TextFixerConfig(
    fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, normalization="NFC", explain=False
)
Messages = list[dict[str, str]]


@functools.cache
def load_tokenizer(model: str | Path) -> Any:
    """The tokenizer of a model's folder, once in a process."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def cleaned(messages: Messages) -> Messages | None:
    """Return the messages as they are trained on, or None where they are left out."""
    turns = [(each["role"], fixed(each["content"])) for each in messages]
    turns = [(role, text) for role, text in turns if text.strip()]
    turns = [
        (role, "\n".join(text for _, text in run)) for role, run in itertools.groupby(turns, key=lambda turn: turn[0])
    ]
    spoken = [(role, text) for role, text in turns if role != "system"]
    if len(spoken) < MIN_TURNS or not MIN_CHARS <= sum(len(text) for _, text in spoken) <= MAX_CHARS:
        return None
    if any(role != ("assistant" if number % 2 else "user") for number, (role, _) in enumerate(spoken)):
        return None
    return [{"role": role, "content": text} for role, text in turns]


def fixed(text: str) -> str:
    """Repair a text; most English needs no more than a look."""
    if text.isascii() and text.replace("\n", "").isprintable() and "&" not in text:
        return text
    return unicodedata.normalize("NFC", ftfy.fix_text(text, CONFIG).translate(CONTROL))


def concatenated(documents: Iterable[list[int]], seq_len: int) -> list[list[int]]:
    """Put documents one behind the other, and cut them each seq_len tokens; the last row may be shorter."""
    tokens = list(itertools.chain.from_iterable(documents))
    return [tokens[start : start + seq_len] for start in range(0, len(tokens), seq_len)]


def timed(action: Callable[[], int]) -> dict[str, float]:
    """Run an action that returns a number of tokens; wall and CPU seconds, of all processes below this one too."""
    cpu_start, start = cpu_seconds(), time.perf_counter()
    tokens = action()
    wall_s = time.perf_counter() - start
    return {"tokens": tokens, "wall_s": wall_s, "cpu_s": cpu_seconds() - cpu_start}


def cpu_seconds() -> float:
    """CPU seconds of this process, of those below it, and of those below them that have ended."""
    process = psutil.Process()
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total

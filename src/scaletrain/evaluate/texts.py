"""Running text of any length: every token is scored once, in windows that move on by a stride.

Each window holds up to `context` tokens of which the last `stride` are new, so a token is given at least
context - stride tokens before it, but at the beginning of a text. The first token is given the one that begins (or else
ends) a text, as in lm-eval's rolling log-likelihood, which a stride of context - 1 equals.

Shapes: B windows at once, T tokens of a window. One text at a time is held as tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log as natural_log
from typing import TYPE_CHECKING

import numpy as np
import orjson

from scaletrain import storage
from scaletrain.errors import DataError, ModelError
from scaletrain.evaluate.answers import Floats, Ints
from scaletrain.evaluate.intervals import ratio_interval
from scaletrain.evaluate.perplexity import exponential
from scaletrain.evaluate.scoring import score_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextLosses:
    """The loss of one text file: of each of its texts nats, tokens and bytes, arrays of shape [texts]."""

    url: str
    nll: Floats
    tokens: Ints
    size_bytes: Ints

    def record(self) -> dict[str, object]:
        """The figures as they stand in reports; the interval resamples texts, so one text has none."""
        nll, tokens, size = self.nll.sum(), self.tokens.sum(), self.size_bytes.sum()
        bits = self.nll / natural_log(2)
        low, high = ratio_interval(bits, self.size_bytes.astype(np.float64)) if len(bits) > 1 else (None, None)
        return {
            "text": self.url,
            "perplexity": exponential(float(nll / tokens)),
            "bits_per_byte": float(nll / size / natural_log(2)),
            "bits_per_byte_low": low,
            "bits_per_byte_high": high,
            "tokens": int(tokens),
            "bytes": int(size),
            "texts": len(self.nll),
        }


@dataclass(frozen=True)
class Window:
    """`input_ids` of one forward pass; of these the last `scored` are new."""

    input_ids: Sequence[int]
    scored: int


def read_texts(url: str) -> list[str]:
    """The texts of a file: a .txt is one, a .jsonl has one in the field `text` of each row; raises DataError."""
    if not url.endswith(".jsonl"):
        texts = [storage.read_text(url)]
    else:
        texts = []
        for number, line in enumerate(storage.read_bytes(url).splitlines(), start=1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise DataError(f"{url}:{number}: is not JSON ({error})") from error
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise DataError(f'{url}:{number}: has no text; each row has to be {{"text": "..."}}')
            texts.append(row["text"])
    if not any(texts):
        raise DataError(f"{url}: is empty; give a file with text in it, or remove it from evaluate.texts")
    return [text for text in texts if text]


def text_losses(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    *,
    url: str,
    context: int,
    stride: int,
    windows_at_once: int,
    on_tokens: Callable[[int], None] = lambda tokens: None,
) -> TextLosses:
    """Score texts; windows of neighbouring texts share a forward pass. `on_tokens` is told what each pass scored."""
    model.train(False)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if begin is None:
        raise ModelError(
            "the tokenizer has no token that begins or ends a text, so a text's first token has no context"
        )
    nll, tokens = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
    waiting: list[tuple[int, Window]] = []
    for number, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        tokens[number] = len(ids)
        for window in rolling_windows(ids, begin=begin, context=context, stride=stride):
            waiting.append((number, window))
            if len(waiting) == windows_at_once:
                on_tokens(_score(model, waiting, nll))
                waiting = []
    if waiting:
        on_tokens(_score(model, waiting, nll))
    size_bytes = np.array([len(text.encode("utf-8", "replace")) for text in texts], dtype=np.int64)
    return TextLosses(url, nll, tokens, size_bytes)


def rolling_windows(ids: Sequence[int], *, begin: int, context: int, stride: int) -> Iterator[Window]:
    """Cut a text into windows of up to `context` tokens; `begin` is given before the first token, and never scored."""
    ids = [begin, *ids]
    done = 1
    while done < len(ids):
        stop = min(done + (context - 1 if done == 1 else stride), len(ids))
        yield Window(ids[max(0, stop - context) : stop], stop - done)
        done = stop


def _score(model: "PreTrainedModel", windows: Sequence[tuple[int, Window]], nll: Floats) -> int:
    """Add the losses of some windows, run at once, to those of their texts; returns how many tokens were scored."""
    longest = max(len(window.input_ids) for _, window in windows)
    input_ids_BT = np.zeros((len(windows), longest), dtype=np.int64)
    where: list[Ints] = []
    for row, (_, window) in enumerate(windows):
        stop = len(window.input_ids)
        input_ids_BT[row, :stop] = window.input_ids
        where.append(np.arange(stop - window.scored, stop, dtype=np.int64) + row * longest)
    scores = score_tokens(model, input_ids_BT, np.concatenate(where))
    owners = np.repeat([number for number, _ in windows], [window.scored for _, window in windows])
    nll += np.bincount(owners, weights=scores.nll, minlength=len(nll))
    return len(owners)

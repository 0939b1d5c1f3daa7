"""Configurations of sweeps for tests, and records of trials that never ran."""

from collections.abc import Mapping
from typing import Any

from scaletrain.config import Config
from scaletrain.config_file import parse_config
from scaletrain.sweep.records import Facts, Stretch, TrialRecord, run_name

BASE = """
name: tiny
model: {init: random, size: {vocab_size: 384, hidden_size: 32, num_layers: 2, num_heads: 4}}
data: {corpora: [{format: chatterbot, source: "package:chatterbot_corpus/data/english/*.yml"}], seq_len: 64}
train: {steps: 80, global_batch_size: 12}
"""


def sweep_config(sweep: str, *overrides: str, root: str = "bucket") -> Config:
    """A small configuration with a section `sweep`, given as YAML."""
    text = f"{BASE}storage: {{root: {root}}}\nsweep: {sweep}\n"
    return parse_config(text, source="sweep.yaml", overrides=overrides)


def trial(
    number: int, curve: Mapping[int, float], *, parameters: Mapping[str, Any] | None = None, **fields: Any
) -> TrialRecord:
    """A trial's record with a curve, of 80 steps."""
    last = max(curve, default=0)
    return TrialRecord(
        number,
        (Stretch(run=run_name("tiny", number), parameters=parameters or {}),),
        curve=tuple(sorted(curve.items())),
        facts=Facts(step=last, total_steps=80, step_s=0.1),
        **{"state": "running", **fields},
    )

"""train/planned.py: a run keeps its forecast when it begins, and is scored against it afterwards."""

import json
from pathlib import Path

from commands import run
from scaletrain.config_file import load_config

CONFIG = """
name: planned
storage: {{root: {root}}}
model:
  gradient_checkpointing: auto
  init: random
  size: {{vocab_size: 320, hidden_size: 16, num_layers: 1, num_heads: 2}}
data: {{corpora: [{{format: messages, source: "{corpus}"}}], seq_len: 32, validation: 0.1}}
train: {{steps: 4, global_batch_size: 4, micro_batch_size: auto, device: cpu}}
checkpoint: {{every_steps: 2}}
budget: {{usd_per_machine_hour: 2.0}}
track: {{tensorboard: false}}
"""


def test_a_run_keeps_its_forecast_and_its_score(tmp_path: Path) -> None:
    """What auto was settled as is in what is stored; the score has time, memory, hours and money."""
    corpus, root, config = tmp_path / "talk.jsonl", tmp_path / "bucket", tmp_path / "run.yaml"
    turns = [
        [{"role": "user", "content": f"What comes after {n}?"}, {"role": "assistant", "content": str(n + 1)}]
        for n in range(40)
    ]
    corpus.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    config.write_text(CONFIG.format(root=root, corpus=corpus))
    folder = root / "runs/planned"
    run("train", str(config), "--local")
    stored = load_config(str(folder / "config.yaml"))
    assert (stored.train.micro_batch_size, stored.model.gradient_checkpointing) == (4, False)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["work"]["steps"] == 4
    assert plan["work"]["origin"].startswith("the prepared dataset")
    assert plan["configured"]["micro_batch_size"] == 4
    assert plan["configured"]["saving"]["size_bytes"] == 12 * plan["model"]["trained"]
    score = json.loads(run("plan", "--score", "planned", "--root", str(root), "--json"))
    assert {each["what"] for each in score["points"]} == {"a step", "a worker's memory", "hours", "money"}
    assert json.loads((folder / "plan-score.json").read_text()) == score

"""How long a command takes to begin: `scaletrain --help`, and `scaletrain train --local` to the end of its first step.

    python benchmarks/startup.py [--write benchmarks/results/startup.md]

The training arm stands beside a bare script that loads the same model folder with transformers, wraps it in the same
DeepSpeed settings and makes one step of the same size. Both are new processes with warm files. Takes some four minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import measure
from scaletrain import storage
from scaletrain.config_file import parse_config
from scaletrain.data.prepare import prepare
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train.extensions import build_extensions

SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))
BARE, OURS = "bare script", "scaletrain train --local"
CONFIG = """
name: startup
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 2048, hidden_size: 128, num_layers: 4, num_heads: 4}}}}
data:
  corpora: [{{format: chatterbot, source: "package:chatterbot_corpus/data/english/*.yml"}}]
  seq_len: 256
  validation: 0
train: {{steps: 1, global_batch_size: 8, micro_batch_size: 4, device: cpu}}
"""
BARE_SCRIPT = """
import os, sys
os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT="29511")
import torch, deepspeed
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
AutoTokenizer.from_pretrained(sys.argv[1])
deepspeed.init_distributed("gloo")
engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters()), config={
    "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2, "gradient_clipping": 1.0,
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 2000000}, "zero_allow_untested_optimizer": True})
for _ in range(2):
    ids = torch.randint(0, 2000, (4, 256))
    engine.backward(engine(input_ids=ids, labels=ids).loss)
    engine.step()
"""


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=8, help="how often each arm runs (default: %(default)s)")
    arguments = parser.parse_args()
    machine = measure.machine("deepspeed", "torch", "transformers")
    build_extensions()
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        report = compare(Path(folder), rounds=arguments.rounds)
    measure.publish(f"# Starting\n\n{machine}\n\n{report}", arguments.write)


def compare(folder: Path, *, rounds: int) -> str:
    """Run the arms in turns; returns the report."""
    root = str(folder / "bucket")
    text = CONFIG.format(root=root)
    config = folder / "startup.yaml"
    config.write_text(text)
    prepared = prepare(parse_config(text, source=str(config)), use_ray=False)
    script = folder / "bare.py"
    script.write_text(BARE_SCRIPT)
    seconds: dict[str, list[float]] = {BARE: [], BARE + measure.AGAIN: [], OURS: []}
    for number in range(rounds + 1):
        order = [BARE, OURS, BARE + measure.AGAIN]
        for name in order if number % 2 else order[::-1]:
            if name == OURS:
                taken = first_step_s(str(config), root, f"startup-{number}")
            else:
                taken = whole_s([sys.executable, str(script), str(storage.local_path(prepared.model_url))])
            if number:
                seconds[name].append(taken)
    help_s = [whole_s([SCALETRAIN, "--help"]) for _ in range(11)][1:]
    rows = [
        [BARE, format(measure.interval(seconds[BARE]), ".2f"), ""],
        [
            OURS,
            format(measure.interval(seconds[OURS]), ".2f"),
            format(measure.ratio(seconds[OURS], seconds[BARE]), ".2f"),
        ],
    ]
    control = measure.ratio(seconds[BARE + measure.AGAIN], seconds[BARE])
    return "\n".join(
        [
            measure.markdown_table(
                ["from the command to the end of step 1", "s", f"against {BARE} (bound: 1.5)"], rows
            ),
            "",
            f"A/A control: {control:.2f}. {rounds} rounds, medians with 95% intervals.",
            "",
            f"- `scaletrain --help`: {measure.interval(help_s):.2f} s (bound: 0.5 s)",
        ]
    )


def first_step_s(config: str, root: str, name: str) -> float:
    """Seconds from the command to the time stamp of the first step's metrics."""
    began = time.time()
    measure.scaletrain("train", config, "--local", f"name={name}")
    first = read_records(RunLayout(root, name).metrics)[0]
    return datetime.fromisoformat(str(first["time"])).timestamp() - began


def whole_s(command: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.time()
    subprocess.run(command, check=True, capture_output=True)
    return time.time() - began


if __name__ == "__main__":
    main()

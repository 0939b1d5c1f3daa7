"""How long `scaletrain plan` takes: a model of 70 billion parameters, of which only the config.json is there.

    python benchmarks/plan.py [--write benchmarks/results/plan.md]

Each execution is a new process with warm files; imports are part of it. Beside it, what any command takes to begin. The
target: 2 s.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))
PLAN, HELP = "plan: 70B on 64 H100s, every way and machine type", "scaletrain --help"
TARGET_S = 2.0
MODEL = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
CONFIG = """
name: big
storage: {{root: {root}/bucket}}
model: {{source: {root}}}
data: {{corpora: [{{format: messages, source: talk.jsonl}}], seq_len: 4096}}
train: {{steps: 1000, global_batch_size: 256, micro_batch_size: auto}}
zero: {{stage: 3}}
scaling: {{workers: 64}}
"""


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=10, help="how often each arm runs (default: %(default)s)")
    options = parser.parse_args()
    machine = measure.machine("rich", "pydantic")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(MODEL))
        config = Path(folder, "big.yaml")
        config.write_text(CONFIG.format(root=folder))
        command = [SCALETRAIN, "plan", str(config), "--machine", "p5.48xlarge"]
        timings = measure.interleave(
            {PLAN: lambda: _run(command), HELP: lambda: _run([SCALETRAIN, "--help"])},
            rounds=options.rounds,
            control=PLAN,
        )
    measure.publish(_report(machine, timings, options.rounds), options.write)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _report(machine: str, timings: dict[str, list[measure.Timing]], rounds: int) -> str:
    walls = {name: measure.interval([each.wall_s for each in timings[name]]) for name in (PLAN, HELP)}
    rows = [[name, f"{wall:.2f}"] for name, wall in walls.items()]
    control = measure.ratio(*([each.wall_s for each in timings[name]] for name in (PLAN, PLAN + measure.AGAIN)))
    took = walls[PLAN].median
    verdict = f"{took:.2f} s against a target of {TARGET_S:g} s: {'kept' if took <= TARGET_S else 'missed'}."
    table = measure.markdown_table(["", "s"], rows)
    closing = f"{rounds} rounds, medians with 95% intervals; A/A control {control:.2f}. {verdict}"
    return f"# Planning\n\n{machine}\n\n{table}\n\n{closing}\n"


if __name__ == "__main__":
    main()

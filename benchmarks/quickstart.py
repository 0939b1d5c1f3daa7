"""The quickstart's training as it is run by a user: what part of a step waits for data, and what is paid once.

    python benchmarks/quickstart.py [--write benchmarks/results/quickstart.md]

Runs `scaletrain train` with launch/configs/quickstart.yaml, two Ray workers and ZeRO-2, in a bucket of its own, and
reads the run's own metrics. The limit for the wait is 0; it is promised to stay below 1%. Takes about four minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np

import measure
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "launch" / "configs" / "quickstart.yaml"
SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--steps", type=int, default=8, help="how many steps to train (default: %(default)s)")
    arguments = parser.parse_args()
    machine = measure.machine("ray", "deepspeed", "torch", "transformers")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as bucket:
        settings = [str(CONFIG), f"storage.root={bucket}", f"train.steps={arguments.steps}"]
        subprocess.run([SCALETRAIN, "prepare", *settings], check=True, cwd=ROOT)
        began = time.time()
        subprocess.run([SCALETRAIN, "train", *settings], check=True, cwd=ROOT)
        ended = time.time()
        records = read_records(RunLayout(bucket, "quickstart").metrics)
    measure.publish(f"# The quickstart's training\n\n{machine}\n\n{report(records, began, ended)}", arguments.write)


def report(records: list[dict[str, object]], began: float, ended: float) -> str:
    """The parts of a step, and of the whole command."""
    step_s, wait_s, stall_s, tokens = (
        np.array([float(str(record[name])) for record in records])
        for name in ("step_s", "data_wait_s", "checkpoint_stall_s", "tokens")
    )
    last = datetime.fromisoformat(str(records[-1]["time"])).timestamp()
    rows = [
        ["start, to the beginning of step 1", f"{last - step_s.sum() - began:.1f}", ""],
        ["all steps", f"{step_s.sum():.1f}", "1"],
        ["of these, waiting for data", f"{wait_s.sum():.4f}", f"{wait_s.sum() / step_s.sum():.5%}"],
        ["of these, saving checkpoints", f"{stall_s.sum():.1f}", f"{stall_s.sum() / step_s.sum():.1%}"],
        ["end, from the last step's end", f"{ended - last:.1f}", ""],
    ]
    return (
        f"{measure.markdown_table(['', 's', 'of all steps'], rows)}\n\n"
        f"{len(records)} steps; a step takes {measure.interval(list(step_s)):.1f} s (median and 95% interval), at "
        f"{tokens.sum() / step_s.sum():.0f} tokens/s; the longest wait for data was {wait_s.max() * 1e3:.2f} ms."
    )


if __name__ == "__main__":
    main()

"""The peer of the fault benchmarks: the same training as a capable user writes it with stock Ray Train and DeepSpeed.

    python benchmarks/peers/stock_ray_train.py --model FOLDER --dataset FOLDER_OR_S3_URL --storage FOLDER_OR_S3_URL
        --log FILE --steps 100 [--save-every 10] [--workers 2] [--global-batch 12] [--micro-batch 2] [--name stock]

It follows Ray's documentation: "Get Started with DeepSpeed", "Saving and Loading Checkpoints", "Data Loading" and
"Handling Failures" (https://docs.ray.io/en/latest/train/user-guides.html). All of Ray's settings are its defaults.
`ray.train.report` is called at saves alone: it is a barrier that takes up to two seconds. A worker or a node that is
lost is Ray's own affair (`max_failures=-1`); for a driver or a cluster that was lost, the same command with the same
name and storage goes on from the newest checkpoint, and does nothing where the last step is there.

The model is a Hugging Face folder, the dataset one that `scaletrain prepare` made (shard-*.parquet). RAY_ADDRESS names
a cluster; without it this machine is one. Rank 0 appends to --log, one JSON object a line, with `time` in seconds since
1970 and the attempt's number of `workers`:

    {"event": "begins", "step": 20, "phases": {...}}   the loop has its state: 20 steps are done; times of its phases
    {"event": "step", "step": 21, "step_s": 0.1, "loss": 5.3, "samples": [..]}   rank 0's own samples of that step
    {"event": "saved", "step": 30}                     Ray Train has the checkpoint

As Ray Data cannot begin in mid-epoch (https://github.com/ray-project/ray/issues/37633), a loop that starts again starts
a new pass over the data: samples come twice, others late or never.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.train
from pyarrow import fs
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

COLUMNS = ["sample_id", "input_ids", "labels"]


def main() -> None:
    """Train to the last step."""
    settings = parse_arguments()
    connect(settings)
    trainer = TorchTrainer(
        train_loop,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="gloo"),
        # num_workers=(least, most) would be Ray's elastic training, but a DeepSpeed checkpoint loads only on as many
        # workers as wrote it (ZeRORuntimeException), so a run that has lost a node has to wait for another one.
        scaling_config=ScalingConfig(num_workers=settings["workers"]),
        run_config=RunConfig(
            name=settings["name"],
            storage_path=settings["storage"],
            failure_config=FailureConfig(max_failures=-1),
            checkpoint_config=CheckpointConfig(num_to_keep=3),
        ),
        datasets={"train": ray.data.read_parquet(shards(settings["dataset"]), columns=COLUMNS)},
    )
    trainer.fit()


def parse_arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face folder that every node reaches")
    parser.add_argument("--dataset", required=True, help="a folder or URL with shard-*.parquet")
    parser.add_argument("--storage", required=True, help="a folder or URL for Ray Train's checkpoints")
    parser.add_argument("--log", required=True, type=Path, help="where rank 0 tells what it does")
    parser.add_argument("--steps", required=True, type=int)
    parser.add_argument("--save-every", type=int, default=10, help="in steps (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--global-batch", type=int, default=12, help="rows of a step (default: %(default)s)")
    parser.add_argument("--micro-batch", type=int, default=2, help="rows of a worker at once (default: %(default)s)")
    parser.add_argument("--name", default="stock", help="the same name goes on with a run (default: %(default)s)")
    settings = vars(parser.parse_args())
    if settings["global_batch"] % (settings["micro_batch"] * settings["workers"]):
        parser.error("--global-batch must be a multiple of --micro-batch times --workers")
    for name in ("model", "dataset", "storage", "log"):  # workers have other working directories
        value = str(settings[name])
        settings[name] = value if "://" in value else str(Path(value).absolute())
    return settings


def connect(settings: dict[str, Any]) -> None:
    """Join the cluster that RAY_ADDRESS names, or be one: with a CPU more than the workers take, for reading."""
    if os.environ.get("RAY_ADDRESS"):
        ray.init()
    else:
        cores = len(os.sched_getaffinity(0))
        ray.init(address="local", num_cpus=max(cores, settings["workers"] + 1), include_dashboard=False)


def shards(dataset: str) -> list[str]:
    """The training shards of a dataset, without those for validation."""
    filesystem, path = fs.FileSystem.from_uri(dataset)
    scheme = dataset.partition("://")[0] + "://" if "://" in dataset else ""
    files = filesystem.get_file_info(fs.FileSelector(path))
    return sorted(scheme + file.path for file in files if file.base_name.startswith("shard-"))


def train_loop(settings: dict[str, Any]) -> None:
    """What each worker runs."""
    phases = {"process": process_started(), "entered": time.time()}
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch
    from transformers import AutoModelForCausalLM

    phases["imported"] = time.time()
    rank, workers = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    accumulated = settings["global_batch"] // (settings["micro_batch"] * workers)
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    engine = make_engine(model, settings, accumulated)
    phases["engine"] = time.time()
    step = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            _, state = engine.load_checkpoint(folder)
        step = state["step"]
    phases["restored"] = time.time()
    batches = micro_batches(settings["micro_batch"])
    micro = next(batches)
    phases["first_batch"] = time.time()
    tell(settings, rank, event="begins", step=step, workers=workers, phases=phases)
    while step < settings["steps"]:
        began, losses, samples = time.perf_counter(), [], []
        for _ in range(accumulated):
            loss = engine(input_ids=micro["input_ids"], labels=micro["labels"], use_cache=False).loss
            engine.backward(loss)
            engine.step()
            losses.append(loss.item())
            samples += micro["sample_id"].tolist()
            micro = next(batches)
        step += 1
        seconds, mean = time.perf_counter() - began, math.fsum(losses) / accumulated
        tell(settings, rank, event="step", step=step, workers=workers, step_s=seconds, loss=mean, samples=samples)
        if step % settings["save_every"] == 0 or step == settings["steps"]:
            with tempfile.TemporaryDirectory() as folder:
                engine.save_checkpoint(folder, client_state={"step": step})
                ray.train.report({"step": step, "loss": mean}, checkpoint=Checkpoint.from_directory(folder))
            tell(settings, rank, event="saved", step=step, workers=workers)


def make_engine(model: Any, settings: dict[str, Any], accumulated: int) -> Any:
    import deepspeed
    import torch

    model.train()
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=2e-5, betas=(0.9, 0.95)),
        config={
            "train_micro_batch_size_per_gpu": settings["micro_batch"],
            "gradient_accumulation_steps": accumulated,
            "gradient_clipping": 1.0,
            "zero_optimization": {"stage": 2, "contiguous_gradients": True, "overlap_comm": False},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        },
    )
    return engine


def micro_batches(rows: int) -> Iterator[dict[str, Any]]:
    """Micro batches of this worker's part of the dataset, one pass after the other."""
    import numpy as np
    import torch

    def collate(columns: dict[str, Any]) -> dict[str, Any]:
        return {name: torch.from_numpy(np.stack(list(columns[name]))).long() for name in COLUMNS}

    shard = ray.train.get_dataset_shard("train")
    while True:
        yield from shard.iter_torch_batches(batch_size=rows, collate_fn=collate, drop_last=True)


def tell(settings: dict[str, Any], rank: int, **facts: Any) -> None:
    """Append a line to the log, in one write."""
    if rank == 0:
        with Path(settings["log"]).open("a") as file:
            file.write(json.dumps({"time": time.time(), **facts}) + "\n")


def process_started() -> float:
    """When this process was started, in seconds since 1970."""
    import psutil

    return psutil.Process().create_time()


if __name__ == "__main__":
    main()

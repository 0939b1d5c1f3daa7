"""Peers of benchmarks/preparation.py: one map over batches, in Ray Data or in Hugging Face datasets, into Parquet.

    python benchmarks/peers/preparation_maps.py ray|datasets CONVERSATIONS.jsonl WARM_UP.jsonl MODEL FOLDER SEQ_LEN

Rows are {"id", "messages"}; MODEL is a folder with a tokenizer and its chat template. Prints a line of JSON: tokens
written, wall and CPU seconds, without what starting takes, and without what the same takes over WARM_UP.jsonl first.
Batches of 1,000 are cleaned, rendered, tokenised and concatenated; no mask is made of what is to be learned.
"""

import json
import sys
from pathlib import Path
from typing import Any

import preparation_steps as steps

BATCH_ROWS = 1000
STORE_BYTES = 10**9


def prepare(batch: dict[str, Any], *, model: str, seq_len: int) -> dict[str, list[list[int]]]:
    """Make rows of tokens of a batch of conversations."""
    words = steps.load_tokenizer(model)
    kept = [messages for each in batch["messages"] if (messages := steps.cleaned(list(each))) is not None]
    texts = words.apply_chat_template(kept, tokenize=False) if kept else []
    ids = words(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []
    return {"input_ids": steps.concatenated(ids, seq_len)}


def with_ray(conversations: Path, folder: Path, options: dict[str, Any]) -> None:
    """Ray Data as its documentation shows it."""
    import ray.data

    rows = ray.data.read_json(str(conversations), lines=True)
    packed = rows.map_batches(prepare, batch_size=BATCH_ROWS, batch_format="numpy", fn_kwargs=options)
    packed.write_parquet(str(folder / "rows"))


def with_datasets(conversations: Path, folder: Path, options: dict[str, Any]) -> None:
    """Hugging Face datasets as its documentation shows it."""
    import datasets

    rows = datasets.load_dataset("json", data_files=str(conversations), split="train", cache_dir=str(folder / "cache"))
    packed = rows.map(prepare, batched=True, batch_size=BATCH_ROWS, remove_columns=rows.column_names, fn_kwargs=options)
    (folder / "rows").mkdir(parents=True)
    packed.to_parquet(str(folder / "rows" / "rows.parquet"))


def main() -> None:
    """Start, warm up, run, and tell what it took."""
    library, conversations, warm_up, model, folder = sys.argv[1], *map(Path, sys.argv[2:6])
    options = {"model": str(model), "seq_len": int(sys.argv[6])}
    run = with_ray if library == "ray" else with_datasets
    if library == "ray":
        start_ray()

    def run_in(conversations: Path, name: str) -> int:
        run(conversations, folder / name, options)
        return count_tokens(folder / name / "rows")

    run_in(warm_up, "warm-up")
    print(json.dumps(steps.timed(lambda: run_in(conversations, "out"))))


def start_ray() -> None:
    """A Ray of one CPU, whose workers find the module beside this script."""
    import ray
    import ray.data

    here = str(Path(__file__).parent)
    runtime_env = {"env_vars": {"PYTHONPATH": here}}
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        runtime_env=runtime_env,
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False


def count_tokens(rows: Path) -> int:
    """Count what was written."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    lengths = (pc.list_value_length(pq.read_table(path)["input_ids"]) for path in rows.glob("*.parquet"))
    return sum(pc.sum(each).as_py() or 0 for each in lengths)


if __name__ == "__main__":
    main()

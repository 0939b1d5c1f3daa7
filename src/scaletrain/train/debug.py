"""Looking inside a run: the first batch decoded, the first non-finite activation named, a profiler trace."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from scaletrain import storage
from scaletrain.data.decoded import decode_spans, spans_text
from scaletrain.data.loader import MicroBatch
from scaletrain.data.shards import IGNORED_LABEL
from scaletrain.errors import TrainingError
from scaletrain.layout import RunLayout
from scaletrain.log import console, get_logger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = get_logger(__name__)


def show_batch(micro_batch: MicroBatch, tokenizer: "PreTrainedTokenizerBase", *, rows: int = 2) -> None:
    """Print the first rows of a micro batch decoded: supervised tokens in green, the rest dim, documents apart."""
    terminal = console()
    for row in range(min(rows, len(micro_batch.sample_ids))):
        terminal.rule(f"sample {micro_batch.sample_ids[row]}")
        supervised = micro_batch.labels[row] != IGNORED_LABEL
        spans = decode_spans(micro_batch.input_ids[row], supervised, micro_batch.documents[row], tokenizer)
        terminal.print(spans_text(spans))
    terminal.print(
        f"green: supervised ({micro_batch.supervised_tokens} of {micro_batch.tokens} tokens in the micro batch)"
    )


@contextmanager
def checking_nan(model: nn.Module) -> Iterator[None]:
    """Raise TrainingError at the first module whose output is not finite, naming it."""

    def check(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            tensors = output if isinstance(output, tuple | list) else (output,)
            for tensor in tensors:
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise TrainingError(
                        f"the output of {name or 'the model'} ({type(module).__name__}) is not finite; "
                        "lower train.learning_rate, or look at the rows with debug.dump_batch=true"
                    )

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(check(name)).remove)
        yield


@contextmanager
def profiling(run: RunLayout, *, steps: int, first_step: int) -> Iterator[Any]:
    """Yield a torch profiler that traces `steps` steps after one of warm-up; call its `step` after each.

    The trace goes to runs/<name>/profile/ and opens in chrome://tracing or https://ui.perfetto.dev.
    """
    url = storage.join(run.url, "profile", f"from-step-{first_step:08d}.json.gz")

    def export(profiler: Any) -> None:
        with TemporaryDirectory(prefix="scaletrain-") as folder:
            path = Path(folder) / "trace.json.gz"
            profiler.export_chrome_trace(str(path))
            storage.upload_file(path, url)
        log.info("profiler trace written to %s", url)

    schedule = torch.profiler.schedule(wait=0, warmup=1, active=steps, repeat=1)
    with torch.profiler.profile(schedule=schedule, on_trace_ready=export, record_shapes=True) as profiler:
        yield profiler

"""A checkpoint becomes an ordinary Hugging Face folder, from any ZeRO stage and number of workers; LoRA is merged."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

from scaletrain import checkpoint, config_file, storage
from scaletrain.checkpoint import Checkpoint, Manifest
from scaletrain.config import Config
from scaletrain.errors import CheckpointError, ConfigError, NotFoundError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.model.build import add_adapters, fetch, load_tokenizer
from scaletrain.model.card import model_card
from scaletrain.model.sources import errors_of_transformers, quiet_transformers
from scaletrain.model.store import INDEX, WEIGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Precision = Literal["auto", "fp32", "bf16"]

_COMMIT = "config.json"  # without it no reader takes the folder for a model
_PARALLEL_READS = 8

log = get_logger(__name__)


def export_run(run: RunLayout, dest_url: str, *, step: int | None = None, dtype: Precision = "auto") -> str:
    """Write the newest committed checkpoint of a run (or that of `step`) to a URL as a Hugging Face folder; returns it.

    config.json is written last. `dtype` auto: the precision that the run was trained in. An earlier export at the URL
    is replaced. Raises CheckpointError, ConfigError, StorageError.
    """
    manifest = find_checkpoint(run, step)
    left_over = _check_destination(dest_url)
    with TemporaryDirectory(prefix="scaletrain-export-") as folder:
        write_export(run, manifest, Path(folder), dtype=dtype)
        _publish(Path(folder), dest_url, left_over)
    log.info("exported step %d of %s to %s", manifest.step, run.name, dest_url)
    return dest_url


def find_checkpoint(run: RunLayout, step: int | None = None) -> Manifest:
    """The newest committed checkpoint of a run, or the one of a step; raises CheckpointError where there is none."""
    if step is None:
        manifest = checkpoint.latest(run)
        if manifest is None:
            raise CheckpointError(
                f"the run {run.name} has no committed checkpoint in {run.checkpoints}; train it first"
            )
        return manifest
    try:
        return checkpoint.load_manifest(run.checkpoint(step))
    except NotFoundError as exc:
        raise CheckpointError(
            f"the run {run.name} has no committed checkpoint of step {step} (see {run.checkpoints}); leave the step "
            "out for the newest"
        ) from exc


def write_export(run: RunLayout, manifest: Manifest, folder: Path, *, dtype: Precision = "auto") -> None:
    """Fill a local folder with the model of a checkpoint: weights, tokenizer, generation settings and a model card."""
    import torch

    config = config_file.load_config(run.config)
    base = fetch(manifest.model_url)
    model: Any = load_trained(run, manifest, config)
    if (manifest.precision if dtype == "auto" else dtype) == "bf16":
        model = model.to(torch.bfloat16)
    with quiet_transformers():
        model.save_pretrained(folder)
        for path in base.iterdir():
            if path.is_file() and not path.name.endswith(WEIGHTS) and path.name not in (_COMMIT, INDEX):
                shutil.copyfile(path, folder / path.name)
        if config.data.chat_template is not None:
            load_tokenizer(manifest.model_url, chat_template=config.data.chat_template).save_pretrained(folder)
    (folder / "README.md").write_text(model_card(run, manifest, config), encoding="utf-8")


def load_trained(run: RunLayout, manifest: Manifest, config: Config) -> "PreTrainedModel":
    """Return the model of a checkpoint with fp32 weights on the CPU, adapters merged, ready for inference.

    Raises CheckpointError where the checkpoint is damaged, or of another model than its run's configuration names.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with errors_of_transformers(manifest.model_url), quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(fetch(manifest.model_url), dtype=torch.float32)
    if config.model.lora is not None:
        model = add_adapters(model, config.model.lora, seed=config.seed)
    _fill(model, checkpoint.open_checkpoint(run.checkpoint(manifest.step)))
    if config.model.lora is not None:
        model = model.merge_and_unload()
    return cast("PreTrainedModel", model.eval())


def _fill(model: Any, source: Checkpoint) -> None:
    """Give every trained parameter its value from the checkpoint; each byte read is verified."""
    import torch

    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    here = {name: tuple(parameter.shape) for name, parameter in trained.items()}
    there = {name: tuple(source.shape(name)) for name in source.names()}
    differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"{source.url} does not fit the model {source.manifest.model_url}: {name} has the shape {here.get(name)} "
            f"in the model, {there.get(name)} in the checkpoint ({len(differing)} such parameters)"
        )

    def fill(name: str) -> None:
        parameter = trained[name]
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(source.read("fp32", name)).view_as(parameter))

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        list(pool.map(fill, trained))


def _check_destination(dest_url: str) -> list[str]:
    """Return the URLs of an earlier export's weights; refuse to write among other files."""
    found = [each.url for each in storage.list_objects(dest_url)]
    if found and storage.join(dest_url, _COMMIT) not in found:
        raise ConfigError(f"{dest_url} is not empty and holds no model; name a new or empty folder")
    return [url for url in found if url.endswith(WEIGHTS)]


def _publish(folder: Path, dest_url: str, left_over: list[str]) -> None:
    """Copy the folder; the file that makes it a model goes first and comes last, so nobody reads half of one."""
    commit = storage.join(dest_url, _COMMIT)
    content = (folder / _COMMIT).read_bytes()
    (folder / _COMMIT).unlink()
    storage.remove(commit)
    for url in left_over:
        storage.remove(url)
    storage.upload_folder(folder, dest_url)
    storage.write_bytes(commit, content)

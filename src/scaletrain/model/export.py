"""A checkpoint becomes what others read, from any ZeRO stage and number of workers.

That is an ordinary Hugging Face folder (LoRA merged), the adapter of a LoRA run alone, or a GGUF file.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

from scaletrain import checkpoint, config_file, storage
from scaletrain.checkpoint import Checkpoint, Manifest
from scaletrain.config import Config
from scaletrain.config_model import quantizes
from scaletrain.devices import dtype_of
from scaletrain.errors import CheckpointError, ConfigError, NotFoundError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.model.build import add_adapters, fetch, load_tokenizer
from scaletrain.model.card import CARD, Format, is_on_the_hub, model_card
from scaletrain.model.export_gguf import write_gguf
from scaletrain.model.export_place import HUB, check_folder, problems_of_place, publish_file, publish_folder
from scaletrain.model.generate import stop_tokens
from scaletrain.model.quantization import load_dequantized
from scaletrain.model.sources import errors_of_transformers, quiet_transformers
from scaletrain.model.store import INDEX, WEIGHTS
from scaletrain.model.template_defaults import with_system_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Format", "Precision", "export_run", "find_checkpoint", "load_trained", "write_export"]

Precision = Literal["auto", "fp32", "bf16", "fp16", "q8_0"]

# Without these no reader takes a folder for a model, or for an adapter.
_COMMITS: dict[str, str] = {"model": "config.json", "adapter": "adapter_config.json"}
_GGUF = ".gguf"
_GGUF_ONLY = ("fp16", "q8_0")
_WRITTEN_ANEW = ("config.json", "generation_config.json", INDEX)
_PARALLEL_READS = 8

log = get_logger(__name__)


def export_run(
    run: RunLayout,
    dest: str,
    *,
    form: Format = "model",
    step: int | None = None,
    dtype: Precision = "auto",
    licence: str | None = None,
    push_to: str | None = None,
) -> str:
    """Write the newest committed checkpoint of a run (or that of `step`) to `dest`, and to `push_to`; returns `dest`.

    Both are a folder, any fsspec URL or hub:USER/NAME; for `form="gguf"` a file that ends in .gguf, or the hub. The
    file that makes a folder a model is written last, and an earlier export is replaced. form adapter: the adapter of a
    LoRA run alone. `dtype` auto: the precision that the run was trained in; fp16 and q8_0 are of GGUF. `licence` goes
    into the model card. Raises CheckpointError, ConfigError, ModelError, StorageError.
    """
    places = [dest] if push_to is None else [dest, push_to]
    _check_request(places, form, dtype)
    manifest = find_checkpoint(run, step)
    config = config_file.load_config(run.config)
    if form == "adapter" and config.model.lora is None:
        raise ConfigError(f"the run {run.name} trains all weights and has no adapter; leave --adapter out")
    for place in places:
        if form != "gguf":
            check_folder(place, commit=_COMMITS[form], source=config.model.source)
    message = f"{run.name} at step {manifest.step}"
    with TemporaryDirectory(prefix="scaletrain-export-") as temporary:
        folder = Path(temporary)
        if form == "model":
            write_export(run, manifest, folder, dtype=dtype, licence=licence)
        elif form == "adapter":
            _write_adapter(run, manifest, config, folder, dtype=dtype, licence=licence)
        else:
            name = next(place for place in places if place.endswith(_GGUF)).rpartition("/")[2]
            _write_gguf(run, manifest, config, folder, name, dtype=dtype, licence=licence)
        for place in places:
            if form == "gguf":
                publish_file(folder, name, place, message=message)
            else:
                publish_folder(folder, place, commit=_COMMITS[form], message=message)
            log.info("exported step %d of %s to %s", manifest.step, run.name, place)
    return dest


def _check_request(places: Sequence[str], form: Format, dtype: Precision) -> None:
    problems = [problem for place in places for problem in problems_of_place(place)]
    if form == "gguf" and places[0].startswith(HUB):
        problems.append(f"{places[0]}: name a file that ends in .gguf first, and the hub with --push-to")
    for place in places:
        if place.endswith(_GGUF) != (form == "gguf") and not place.startswith(HUB):
            problems.append(f"{place}: a GGUF file ends in .gguf, a folder does not; all of one export are of one kind")
    if form != "gguf" and dtype in _GGUF_ONLY:
        problems.append(f"--dtype={dtype} is for GGUF files; use auto, fp32 or bf16, or a DEST that ends in .gguf")
    if problems:
        raise ConfigError(problems)


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


def write_export(
    run: RunLayout, manifest: Manifest, folder: Path, *, dtype: Precision = "auto", licence: str | None = None
) -> None:
    """Fill a local folder with the model of a checkpoint: weights, tokenizer, generation settings and a model card."""
    config = config_file.load_config(run.config)
    base = fetch(base_url(run, manifest))
    model: Any = _in_precision(load_trained(run, manifest, config), manifest, dtype)
    words = _tokenizer(run, manifest, config)
    _stop_at_the_end_of_a_turn(model, words)
    with quiet_transformers():
        model.save_pretrained(folder)
        for path in base.iterdir():
            if path.is_file() and not path.name.endswith(WEIGHTS) and path.name not in _WRITTEN_ANEW:
                shutil.copyfile(path, folder / path.name)
        if words.chat_template != load_tokenizer(base_url(run, manifest)).chat_template:
            words.save_pretrained(folder)
    (folder / CARD).write_text(model_card(run, manifest, config, licence=licence), encoding="utf-8")


def _write_adapter(
    run: RunLayout, manifest: Manifest, config: Config, folder: Path, *, dtype: Precision, licence: str | None
) -> None:
    """Fill a folder as PEFT does, so that it names its base model where others find it."""
    model: Any = _in_precision(_load(run, manifest, config), manifest, dtype)
    source = config.model.source
    adapter = model.peft_config["default"]
    is_public = source is not None and is_on_the_hub(source)
    adapter.base_model_name_or_path = source if is_public else storage.absolute(base_url(run, manifest))
    adapter.revision = config.model.revision
    with quiet_transformers():
        model.save_pretrained(folder)
        words = _tokenizer(run, manifest, config)
        words.save_pretrained(folder)
    card = model_card(run, manifest, config, form="adapter", licence=licence)
    (folder / CARD).write_text(card, encoding="utf-8")


def _write_gguf(
    run: RunLayout,
    manifest: Manifest,
    config: Config,
    folder: Path,
    name: str,
    *,
    dtype: Precision,
    licence: str | None,
) -> None:
    model = load_trained(run, manifest, config)
    words = _tokenizer(run, manifest, config)
    precision: Any = manifest.precision if dtype == "auto" else dtype
    write_gguf(model, words, folder / name, dtype=precision, name=run.name, licence=licence)
    card = model_card(run, manifest, config, form="gguf", place=name, licence=licence)
    (folder / CARD).write_text(card, encoding="utf-8")


def _tokenizer(run: RunLayout, manifest: Manifest, config: Config) -> "PreTrainedTokenizerBase":
    """The tokenizer, whose template asks the model as it was trained, whoever loads it."""
    data = config.data
    words = load_tokenizer(base_url(run, manifest), chat_template=data.chat_template, thinking=data.thinking)
    if data.system_prompt is not None and words.chat_template:
        words.chat_template = with_system_prompt(words.chat_template, data.system_prompt)
    return words


def _in_precision(model: Any, manifest: Manifest, dtype: Precision) -> Any:
    import torch

    return model.to(torch.bfloat16) if (manifest.precision if dtype == "auto" else dtype) == "bf16" else model


def _stop_at_the_end_of_a_turn(model: Any, words: "PreTrainedTokenizerBase") -> None:
    """Whoever generates with the model's own settings stops where the chat template ends a turn."""
    stops = sorted(stop_tokens(model, words))
    configured = model.generation_config.eos_token_id
    if stops and set(stops) != set(configured if isinstance(configured, list) else [configured]):
        model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]


def base_url(run: RunLayout, manifest: Manifest) -> str:
    """Where the model is that a checkpoint was trained from: beside the run, also after that was copied elsewhere."""
    from scaletrain.run_inputs import inputs_of

    return inputs_of(run, manifest).model_url


def load_trained(run: RunLayout, manifest: Manifest, config: Config) -> "PreTrainedModel":
    """Return the model of a checkpoint with fp32 weights on the CPU, adapters merged, ready for inference.

    Raises CheckpointError where the checkpoint is damaged, or of another model than its run's configuration names.
    """
    model: Any = _load(run, manifest, config)
    if config.model.lora is not None:
        model = model.merge_and_unload()
    return cast("PreTrainedModel", model.eval())


def _load(run: RunLayout, manifest: Manifest, config: Config) -> Any:
    """The model of a checkpoint, with its adapters beside it where the run trained adapters."""
    import torch
    from transformers import AutoModelForCausalLM

    url = base_url(run, manifest)
    with errors_of_transformers(url), quiet_transformers():
        if quantizes(config.model.lora):
            model: Any = load_dequantized(fetch(url), computing=dtype_of(manifest.precision))
        else:
            model = AutoModelForCausalLM.from_pretrained(fetch(url), dtype=torch.float32)
    if config.model.lora is not None:
        model = add_adapters(model, config.model.lora, seed=config.seed)
    _fill(model, checkpoint.open_checkpoint(run.checkpoint(manifest.step)))
    return model


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

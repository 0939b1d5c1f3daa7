"""Models in this process: each is found, loaded and given an engine of its own."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scaletrain import storage
from scaletrain.config_serve import ServeSection
from scaletrain.errors import ModelError
from scaletrain.model.resolve import newest_version, resolve_model
from scaletrain.model.store import cache_folder
from scaletrain.serve.models import Models, Origin, ServedModel
from scaletrain.serve.protocol import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ADAPTER_FILE = "adapter_config.json"


def local_models(section: ServeSection, *, root: str) -> Models:
    """Models whose engines run in this process."""

    async def load(origin: Origin) -> ServedModel:
        folder = await asyncio.to_thread(resolve_model, origin.source, root=root)
        tokenizer = await asyncio.to_thread(load_tokenizer, folder)
        engine = await asyncio.to_thread(load_engine, section, folder, origin.adapters)
        return ServedModel(origin, engines_of(origin, engine), tokenizer, close_engine=engine.close)

    async def newest(source: str) -> str | None:
        return await asyncio.to_thread(newest_version, source, root=root)

    return Models(load, newest)


def load_engine(section: ServeSection, folder: Path, adapters: Mapping[str, str]) -> Engine:
    """The engine of a model, with its adapters, as the section asks."""
    from scaletrain.serve.engine_choice import choose_engine
    from scaletrain.serve.engine_limits import EngineLimits

    limits = EngineLimits(
        max_running=section.max_running, max_waiting=section.max_waiting, context_tokens=section.context_tokens
    )
    folders = {name: _adapter_folder(url) for name, url in adapters.items()}
    return choose_engine(folder, device=section.device, kind=section.engine, limits=limits, adapters=folders)


def engines_of(origin: Origin, engine: Engine) -> dict[str, Engine]:
    """The engine by the names that clients may use: the model's, and those of its adapters."""
    from scaletrain.serve.engine import BatchEngine

    if not origin.adapters:
        return {origin.name: engine}
    assert isinstance(engine, BatchEngine)  # choose_engine gives no other where there are adapters
    return {origin.name: engine} | {name: engine.adapter(name) for name in origin.adapters}


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a Hugging Face folder; raises ModelError."""
    from transformers import AutoTokenizer

    from scaletrain.model.sources import errors_of_transformers, quiet_transformers

    with errors_of_transformers(str(folder)), quiet_transformers():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def _adapter_folder(url: str) -> Path:
    """An adapter as a local folder; raises ModelError where there is none."""
    if not storage.exists(storage.join(url, _ADAPTER_FILE)):
        raise ModelError(f"{url} is no LoRA adapter: it has no {_ADAPTER_FILE}; export one as a PEFT folder")
    if storage.is_local(url):
        return storage.local_path(url)
    folder = cache_folder() / "adapters" / url.rpartition("://")[2].strip("/").replace("/", "-")
    storage.download_folder(url, folder)
    return folder

"""A model's config.json, wherever the model is: of all its files only this one is read."""

from collections.abc import Mapping
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.config_model import ModelSection
from scaletrain.errors import ModelError, NotFoundError
from scaletrain.model import sources
from scaletrain.model.build import pretrained_url
from scaletrain.model.shape import ModelShape, random_settings, shape_of
from scaletrain.model.store import is_published


def read_shape(section: ModelSection, *, root: str) -> ModelShape:
    """The shape of the model that a configuration names; downloads at most its config.json. Raises ModelError."""
    if section.init == "random":
        assert section.size is not None
        return shape_of(random_settings(section.size))
    assert section.source is not None
    return shape_of(_settings(section.source, section.revision, root), source=section.source)


def shape_at(model_url: str) -> ModelShape:
    """The shape of a model in the bucket, or in any folder with a config.json. Raises ModelError, StorageError."""
    return shape_of(read_settings(model_url), source=model_url)


def _settings(name: str, revision: str | None, root: str) -> Mapping[str, Any]:
    source = sources.locate(name, revision)
    if source.kind == "folder":
        return read_settings(source.location)
    in_bucket = pretrained_url(source, root)
    if is_published(in_bucket):
        return read_settings(in_bucket)
    return _of_gguf(source.location) if source.kind == "gguf" else _of_hub(source)


def read_settings(folder: str) -> Mapping[str, Any]:
    """The content of a folder's config.json. Raises ModelError, StorageError."""
    url = storage.join(folder, "config.json")
    try:
        settings = orjson.loads(storage.read_bytes(url))
    except NotFoundError as error:
        raise ModelError(f"{folder} is no Hugging Face model: it has no config.json") from error
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{url}: is not JSON ({error}); copy it again") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{url}: has no keys; copy it again")
    return settings


def _of_gguf(location: str) -> Mapping[str, Any]:
    if not storage.is_local(location):
        raise ModelError(
            f"{location}: a GGUF file in a bucket tells its sizes once it was converted; run `scaletrain prepare` "
            "first, or name a copy on this machine"
        )
    from transformers import AutoConfig

    path = storage.local_path(location)
    with sources.errors_of_transformers(location), sources.quiet_transformers():
        settings: Mapping[str, Any] = AutoConfig.from_pretrained(path.parent, gguf_file=path.name).to_dict()
    return settings


def _of_hub(source: sources.Source) -> Mapping[str, Any]:
    try:
        path = sources.hub_snapshot(source, "config.json") / "config.json"
        settings: Mapping[str, Any] = orjson.loads(path.read_bytes())
    except (ModelError, FileNotFoundError) as error:
        raise ModelError(
            f"{error}. A folder with the model's config.json alone is enough to plan with: model.source=FOLDER"
        ) from error
    return settings

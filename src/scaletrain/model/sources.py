"""Where a pretrained model comes from (a folder, a URL, a GGUF file, the Hugging Face hub), and making it ours.

Every kind ends as the same thing: a local folder of Hugging Face files (config, safetensors, tokenizer with chat
template) that was checked to be a causal language model. Nothing is unpickled but by torch's weights-only reader, and
no code that a model brings along is run.
"""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import orjson
import xxhash

from scaletrain import storage
from scaletrain.errors import ModelError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.model import store, tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_PACKAGE = "package:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", "LICENSE*")
_PICKLED = "pytorch_model*.bin"
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_PARALLEL_FILES = 8

log = get_logger(__name__)


@dataclass(frozen=True)
class Source:
    """One place to take a model from; `location` is a URL of a folder or a GGUF file, or a hub id."""

    kind: Literal["folder", "gguf", "hub"]
    location: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """A short name for folders and reports."""
        stem = PurePosixPath(self.location.rstrip("/")).name.removesuffix(".gguf")
        return re.sub(r"[^a-z0-9.-]+", "-", stem.lower()).strip("-.") or "model"

    def fingerprint(self) -> str:
        """A hash that changes when other bytes would be taken.

        Local files count by content, remote ones by the store's version, a hub id by its revision: a branch is fixed
        at its first use.
        """
        if self.kind == "hub":
            parts = [(self.location, self.revision or "main")]
        elif storage.is_local(self.location):
            parts = [
                (file.url.rpartition("/")[2], store.checksum(storage.local_path(file.url))) for file in self.files()
            ]
        else:
            parts = [(file.url, f"{file.version}-{file.size_bytes}") for file in self.files()]
        return xxhash.xxh3_128_hexdigest(orjson.dumps([self.kind, parts]))

    def files(self) -> list[storage.ObjectInfo]:
        """The objects that are taken: of a folder those a model is made of, without its sub-folders."""
        if self.kind == "gguf":
            return [storage.info(self.location)]
        below = {
            each.url.removeprefix(self.location.rstrip("/") + "/"): each for each in storage.list_objects(self.location)
        }
        names = [name for name in below if "/" not in name]
        kept = [name for name in names if _matches(name, _KEPT) and name != store.INDEX]
        if not any(name.endswith(".safetensors") for name in names):
            kept += [name for name in names if _matches(name, (_PICKLED,))]
        return [below[name] for name in sorted(kept)]


def locate(source: str, revision: str | None = None) -> Source:
    """Find out what a model's name stands for; raises ModelError where nothing is there."""
    if source.startswith(_PACKAGE):
        return Source("gguf" if source.endswith(".gguf") else "folder", str(_in_package(source)))
    if source.endswith(".gguf"):
        if not storage.exists(source):
            raise ModelError(f"{source}: there is no such GGUF file; check the path")
        return Source("gguf", source)
    if storage.exists(source):
        if storage.is_local(source) and storage.local_path(source).is_file():
            raise ModelError(f"{source} is a file; name the folder of a model, or a file that ends with .gguf")
        return Source("folder", source)
    if "://" in source or not _HUB_ID.fullmatch(source):
        raise ModelError(f"{source}: there is no such model folder; check the path")
    return Source("hub", source, revision)


def assemble(source: Source, folder: Path) -> None:
    """Fill an empty folder with the model's files, converted where they must be; raises ModelError.

    Weights keep the type they have; those of a GGUF file become the fp32 numbers that its blocks stand for.
    """
    if source.kind == "gguf":
        _convert_gguf(source, folder)
    elif source.kind == "hub":
        _download_from_hub(source, folder)
    else:
        _copy_folder(source, folder)
    config = check_config(folder, source.location)
    if any(folder.glob(_PICKLED)):
        _convert_pickled(folder, source.location)
    _check_weights(folder, source.location)
    _complete_tokenizer(folder, source.location, config)


def check_config(folder: Path, source: str) -> "PreTrainedConfig":
    """Return a model's configuration; raises ModelError unless it is a causal language model that can be trained."""
    from transformers import AutoConfig

    from scaletrain.model.attention_choice import check_attention

    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(f"{source} holds LoRA adapters, not a model; merge them into their base model first")
        raise ModelError(f"{source} is no Hugging Face model: it has no config.json")
    with errors_of_transformers(source):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    architectures = config.architectures or []
    if config.is_encoder_decoder or not any(name.endswith(_CAUSAL) for name in architectures):
        found = ", ".join(architectures) or f"{config.model_type}, without an architecture"
        raise ModelError(f"{source} is not a causal language model ({found}); use one whose class ends in ForCausalLM")
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        raise ModelError(f"{source} is quantised and cannot be trained; use the model it was made from")
    check_attention(config, source)
    return config


@contextmanager
def errors_of_transformers(source: str) -> Iterator[None]:
    """Raise whatever transformers makes of a model it cannot use as a ModelError that names the model."""
    try:
        yield
    except ScaletrainError:
        raise
    except Exception as exc:
        reason = str(exc).strip().partition("\n")[0] or type(exc).__name__
        raise ModelError(f"{source} cannot be used: {reason}") from exc


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and advice from the user's terminal."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _in_package(source: str) -> Path:
    """The path behind `package:NAME/FILE`; the package is found, not imported."""
    package, _, name = source.removeprefix(_PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{source}: the package {package} is not installed; pip install {package.replace('_', '-')}")
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.exists():
        raise ModelError(f"{source}: the package {package} has no {name}")
    return path


def _copy_folder(source: Source, folder: Path) -> None:
    files = source.files()
    if not files:
        raise ModelError(
            f"{source.location} holds no model files; name a folder with config.json, or a GGUF file in it"
        )

    def copy(file: storage.ObjectInfo) -> None:
        storage.download_file(file.url, folder / file.url.rpartition("/")[2])

    with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        list(pool.map(copy, files))


def hub_snapshot(source: Source, *patterns: str) -> Path:
    """Download a hub model's files of these names, or find them in the hub's cache; raises ModelError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(
                source.location, revision=source.revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
            )
        )
    except (HfHubHTTPError, OSError) as exc:
        raise ModelError(f"{source.location}: {_hub_advice(source, exc)}") from exc


def _download_from_hub(source: Source, folder: Path) -> None:
    log.info("downloading %s from the Hugging Face hub", source.location)
    downloaded = hub_snapshot(source, *_KEPT)
    if not any(downloaded.glob("*.safetensors")):
        downloaded = hub_snapshot(source, *_KEPT, _PICKLED)
    for path in downloaded.iterdir():
        if path.is_file() and _matches(path.name, (*_KEPT, _PICKLED)) and path.name != store.INDEX:
            shutil.copyfile(path, folder / path.name)


def _hub_advice(source: Source, error: Exception) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError):
        return (
            "no such folder here, and the Hugging Face hub cannot be reached; check the network, or name a folder, "
            "a URL or a GGUF file"
        )
    if isinstance(error, GatedRepoError):
        return "the hub asks for consent; accept the model's terms on its page, then run `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"the hub has no revision {source.revision}; check model.revision"
    if isinstance(error, RepositoryNotFoundError):
        return "no such folder here, and no such model on the hub; check the name, or `hf auth login` if it is private"
    return f"the download from the Hugging Face hub failed ({error}); try again"


def _convert_gguf(source: Source, folder: Path) -> None:
    """Write the numbers that a GGUF file's blocks stand for as fp32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s to safetensors", source.location)
    with TemporaryDirectory(prefix="scaletrain-gguf-") as downloads:
        if storage.is_local(source.location):
            path = storage.local_path(source.location)
        else:
            path = Path(downloads) / "model.gguf"
            storage.download_file(source.location, path)
        with errors_of_transformers(source.location), quiet_transformers():
            model: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
            words = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            del model.config.quantization_config  # the weights are plain now, and save_pretrained refuses marked ones
            model.hf_quantizer = None
            model.save_pretrained(folder)
            words.save_pretrained(folder)


def _convert_pickled(folder: Path, source: str) -> None:
    from transformers import AutoModelForCausalLM

    with errors_of_transformers(source), quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        model.save_pretrained(folder)
    for path in [*folder.glob(_PICKLED), *folder.glob("pytorch_model*.json")]:
        path.unlink()


def _check_weights(folder: Path, source: str) -> None:
    """Raise ModelError for a weights file that is missing, or shorter than its header says."""
    from safetensors import SafetensorError, safe_open

    files = {path.name for path in folder.glob("*.safetensors")}
    for index in folder.glob("*.safetensors.index.json"):
        missing = set(orjson.loads(index.read_bytes())["weight_map"].values()) - files
        if missing:
            raise ModelError(f"{source} lacks {min(missing)}, which {index.name} names; copy the whole model")
    if not files:
        raise ModelError(f"{source} has no weights: no *.safetensors and no {_PICKLED}")
    for name in files:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except SafetensorError as exc:
            raise ModelError(f"{source}: {name} is damaged or cut short ({exc}); copy it again") from exc


def _complete_tokenizer(folder: Path, source: str, config: "PreTrainedConfig") -> None:
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            words = AutoTokenizer.from_pretrained(folder)
    except Exception as exc:
        raise ModelError(f"{source} has no tokenizer that transformers can load; add its tokenizer.json") from exc
    rows = getattr(config, "vocab_size", None)
    if rows is not None and len(words) > rows:
        raise ModelError(f"{source}: the tokenizer has {len(words)} tokens, the model only {rows}: they are no pair")
    if tokenizer.complete(words, source=source):
        words.save_pretrained(folder)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in patterns)

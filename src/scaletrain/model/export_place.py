"""Where an export goes: a folder, a file or any fsspec URL through storage, or a repository of the Hugging Face hub.

Whoever reads meanwhile sees no half of a model: in storage the file that makes a folder a model is removed first and
written last; the hub gets everything in one commit.
"""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from scaletrain import storage
from scaletrain.errors import AccessError, ConfigError, StorageError
from scaletrain.log import get_logger
from scaletrain.model.card import CARD, is_model_card
from scaletrain.model.store import WEIGHTS

HUB = "hub:"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_UNFIT = 401, 403

log = get_logger(__name__)


def problems_of_place(dest: str) -> list[str]:
    """What is wrong with the name of a destination."""
    if dest.startswith(HUB) and not _REPOSITORY.fullmatch(dest.removeprefix(HUB)):
        return [f"{dest}: name a repository of the hub as hub:USER/NAME"]
    return []


def check_folder(dest: str, *, commit: str, source: str | None) -> None:
    """Raise ConfigError where a folder holds something else than an earlier export, which would be written among.

    `source` is the model that the run was trained from, which no export may replace.
    """
    if dest.startswith(HUB):
        return
    if source is not None and storage.absolute(dest).rstrip("/") == storage.absolute(source).rstrip("/"):
        raise ConfigError(f"{dest} is model.source, which the run was trained from; name a new or empty folder")
    found = [each.url for each in storage.list_objects(dest)]
    if found and storage.join(dest, commit) not in found:
        raise ConfigError(f"{dest} is not empty and holds no {commit} of an earlier export; name a new or empty folder")
    card = storage.join(dest, CARD)
    if found and not (card in found and is_model_card(storage.read_bytes(card).decode(errors="replace"))):
        raise ConfigError(f"{dest} holds a model that is no earlier export of scaletrain; name a new or empty folder")


def publish_folder(folder: Path, dest: str, *, commit: str, message: str) -> None:
    """Copy a folder to where it goes; an earlier export there is replaced. `commit` is the file that comes last."""
    if dest.startswith(HUB):
        _push(folder, dest.removeprefix(HUB), message=message)
        return
    left_over = [each.url for each in storage.list_objects(dest) if each.url.endswith(WEIGHTS)]
    storage.remove(storage.join(dest, commit))
    for url in left_over:
        storage.remove(url)
    with TemporaryDirectory(prefix="scaletrain-commit-") as apart:
        last = Path(shutil.move(folder / commit, apart))
        try:
            storage.upload_folder(folder, dest)
            storage.upload_file(last, storage.join(dest, commit))
        finally:
            shutil.move(last, folder / commit)  # there may be another place to go to


def publish_file(folder: Path, name: str, dest: str, *, message: str) -> None:
    """Copy one file of a folder to a URL; the hub gets all of the folder."""
    if dest.startswith(HUB):
        _push(folder, dest.removeprefix(HUB), message=message)
    else:
        storage.upload_file(folder / name, dest)


def _push(folder: Path, repository: str, *, message: str) -> None:
    """Commit a folder to the hub; the same again makes no commit. Weights of an earlier export are removed with it.

    Raises AccessError without a token that may write, StorageError where the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message,
            delete_patterns=["*.safetensors", "*.safetensors.index.json", "*.gguf"],
        )
    except errors.HfHubHTTPError as exc:
        reason = exc.server_message or str(exc).strip().partition("\n")[0]
        if exc.response.status_code in _UNFIT:
            raise AccessError(
                f"hub:{repository}: the hub does not let you write there ({reason}); set HF_TOKEN to a token that may"
            ) from exc
        raise StorageError(f"hub:{repository}: the hub refuses ({reason})") from exc
    except (errors.HTTPError, OSError) as exc:  # type: ignore[attr-defined]  # that of the HTTP client it uses
        raise StorageError(f"hub:{repository}: the hub cannot be reached ({exc})") from exc
    log.info("pushed to %s; a new repository is private until you change that on its page", commit.commit_url)

"""packing_project: what a job's code is made of, byte for byte the same each time."""

import io
import zipfile
from pathlib import Path

import pytest

from scaletrain.cluster.packing_project import pack_project, user_functions
from scaletrain.config import Config
from scaletrain.errors import ConfigError


def configuration(*, format: str = "chitchat", cleaning: tuple[str, ...] = ()) -> Config:
    return Config.model_validate(
        {
            "name": "x",
            "model": {"source": "some/model"},
            "data": {"corpora": [{"format": format, "source": "s3://b/x"}], "cleaning": cleaning},
            "train": {"steps": 1},
        }
    )


def names(package: bytes | None) -> list[str]:
    assert package is not None
    return zipfile.ZipFile(io.BytesIO(package)).namelist()


def test_the_source_is_packed_and_nothing_else_of_the_checkout() -> None:
    """A checkout's package goes along: no tests, no caches, no secrets that lie about."""
    found = names(pack_project(configuration()))
    assert "scaletrain/train/loop.py" in found
    assert all(name.startswith("scaletrain/") and "__pycache__" not in name for name in found)


def test_the_same_files_are_the_same_bytes() -> None:
    """Ray uploads a package once, since its name is a hash of its bytes."""
    package = pack_project(configuration())
    assert package == pack_project(configuration())
    assert package is not None and len(package) < 2_000_000


def test_the_users_package_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package named in the configuration is packed whole, from the working directory, without hidden files."""
    package = tmp_path / "corpora_of_mine"
    (package / "parts").mkdir(parents=True)
    for name in ("__init__.py", "parts/reading.py", "words.txt", ".env"):
        (package / name).write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    found = names(pack_project(configuration(format="corpora_of_mine.parts.reading:read_row")))
    assert {"corpora_of_mine/__init__.py", "corpora_of_mine/parts/reading.py", "corpora_of_mine/words.txt"} < set(found)
    assert "corpora_of_mine/.env" not in found


def test_a_single_module_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function may stand in one file beside the configuration."""
    (tmp_path / "my_steps_of_today.py").write_text("def shorten(c):\n    return c\n")
    monkeypatch.chdir(tmp_path)
    assert "my_steps_of_today.py" in names(pack_project(configuration(cleaning=("my_steps_of_today:shorten",))))


def test_an_installed_package_stays_where_it_is() -> None:
    """What is installed here has to be installed there, too: it is no part of the project."""
    found = names(pack_project(configuration(cleaning=("ftfy.fixes:fix_surrogates",))))
    assert not any(name.startswith("ftfy") for name in found)


def test_a_module_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake is found here, not after machines were rented."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.cleaning\.0: nowhere_to_be_found:step: no module"):
        pack_project(configuration(cleaning=("nowhere_to_be_found:step",)))


def test_a_package_full_of_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is small; what is large belongs into the bucket."""
    (tmp_path / "heavy_package").mkdir()
    (tmp_path / "heavy_package" / "__init__.py").write_text("")
    (tmp_path / "heavy_package" / "weights.bin").write_bytes(bytes(21 * 2**20))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"heavy_package/weights\.bin"):
        pack_project(configuration(format="heavy_package:read"))


def test_only_the_users_own_functions_count() -> None:
    """Built-in names have no colon."""
    config = configuration(format="a.b:c", cleaning=("fix_unicode", "d:e"))
    assert user_functions(config) == [("data.corpora.0.format", "a.b:c"), ("data.cleaning.1", "d:e")]

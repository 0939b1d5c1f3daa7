"""A dataset is the same, to the last bit of each file, whoever prepared it, and however often that was killed."""

import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from every_format import write_every_format
from killed_preparation import prepare_until

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.data.check import check_dataset
from scaletrain.data.prepare import prepare

pytestmark = pytest.mark.long

# A server that has imported what takes seconds, and forks itself for each preparation that is to be killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["scaletrain.data.prepare", "transformers.models.auto.tokenization_auto", "transformers.modeling_utils"]
)
# The stage, the function at whose n-th call the process is killed, and how many files of the dataset are there then.
STAGES = {
    "reading": ("scaletrain.data.tokenise.read_files", 9, 0),
    "tokenising": ("scaletrain.data.encoding.clean", 300, 0),
    "keeping documents": ("scaletrain.storage.upload_file", 9, 0),
    "looking for duplicates": ("scaletrain.data.prepare.drop_duplicates", 1, 0),
    "packing": ("scaletrain.data.prepare.build_rows", 1, 0),
    "before the first shard": ("scaletrain.data.shards.checksum_of", 1, 0),
    "between shards": ("scaletrain.data.shards.checksum_of", 2, 1),
    "before the provenance": ("scaletrain.data.provenance.upload_file", 1, 2),
    "before the statistics": ("scaletrain.storage.write_bytes", 1, 3),
    "before the report": ("scaletrain.storage.write_bytes", 2, 4),
    "before the index": ("scaletrain.storage.write_bytes", 3, 5),
}
KEPT = "/documents/"
Files = dict[str, bytes]


def files_below(root: str) -> Files:
    """All objects below a storage root, by their place in it."""
    return {each.url.removeprefix(root): storage.read_bytes(each.url) for each in storage.list_objects(root)}


def config_at(root: str, corpora: list[dict[str, object]], **options: str) -> Config:
    """A tiny random model and a mix of these corpora."""
    return Config.model_validate(
        {
            "name": "same",
            "storage": {"root": root, "options": options},
            "model": {"init": "random", "size": {"vocab_size": 400, "hidden_size": 16, "num_heads": 2}},
            "data": {"corpora": corpora, "seq_len": 256, "validation": 0.1, "temperature": 1.5},
            "train": {"steps": 1},
        }
    )


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """A corpus of every format."""
    return [dump.corpus() for dump in write_every_format(tmp_path_factory.mktemp("dumps"))]


@pytest.fixture(scope="module")
def expected(corpora: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Everything in the bucket after a preparation in this process, model included; a sound dataset."""
    root = str(tmp_path_factory.mktemp("here"))
    prepared = prepare(config_at(root, corpora), use_ray=False)
    assert check_dataset(prepared.dataset_url).problems == []
    return files_below(root)


def without_kept(files: Files) -> Files:
    """Those that are no documents kept for the next preparation: in these, rows are in the order of Ray's tasks."""
    return {name: data for name, data in files.items() if not name.startswith(KEPT)}


@pytest.mark.parametrize("num_cpus", [1, pytest.param(2, marks=pytest.mark.soak), 4])
def test_ray_makes_the_same_bytes(
    num_cpus: int, corpora: list[dict[str, object]], expected: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one CPU, where tasks come one or two at a time, and on more, where they end in another order each time.

    So does this process of the documents that Ray's tasks made: all parts are reused.
    """
    import ray

    config = config_at(str(tmp_path), corpora)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # a format of the tests' own is read there too
    ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
    try:
        prepared = prepare(config)
        assert ray.cluster_resources()["CPU"] == num_cpus
    finally:
        ray.shutdown()
    files = files_below(str(tmp_path))
    assert without_kept(files) == without_kept(expected)
    assert files.keys() == expected.keys()
    storage.remove(prepared.dataset_url)
    monkeypatch.setattr("scaletrain.data.incremental.tokenise", None)  # nothing is left to do for it
    prepare(config, use_ray=False)
    assert files_below(str(tmp_path)) == files


@pytest.mark.parametrize("stage", STAGES)
def test_after_a_kill_the_same_command_makes_the_same_bytes(
    stage: str, corpora: list[dict[str, object]], expected: Files, tmp_path: Path
) -> None:
    """There is no dataset after SIGKILL, whenever it came; the next preparation leaves nothing else behind."""
    root = str(tmp_path / "bucket")
    _killed_then_made(config_at(root, corpora), stage, expected, tmp_path)


def test_after_a_kill_a_bucket_has_the_same_bytes(
    corpora: list[dict[str, object]], expected: Files, s3_bucket: str, s3_server: str, tmp_path: Path
) -> None:
    """The same on S3, with shards and provenance there."""
    config = config_at(f"{s3_bucket}/root", corpora, endpoint_url=s3_server)
    storage.configure(s3_bucket, config.storage.options)
    try:
        _killed_then_made(config, "before the statistics", expected, tmp_path)
    finally:
        storage.configure(s3_bucket, {})


def _killed_then_made(config: Config, stage: str, expected: Files, folder: Path) -> None:
    """Have a process killed that prepares, look at what it left, and prepare here; the model was there before.

    The documents that were whole by then are not made again.
    """
    root = config.storage.root
    model = {name: data for name, data in expected.items() if name.startswith("/models/")}
    for name, data in model.items():
        storage.write_bytes(root + name, data)
    _prepare_until(config, stage, folder)
    left = files_below(root)
    assert left.items() <= expected.items()
    assert len(without_kept(left)) == len(model) + STAGES[stage][2]
    assert not any(name.endswith("/index.json") for name in left.keys() - model.keys())
    temporary = [*folder.glob("scaletrain-scratch-*")]
    assert temporary or stage == "before the index"  # all that is local is done with by then
    kept = {each.url: each.version for each in storage.list_objects(root + KEPT)}
    assert kept or stage in ("reading", "tokenising")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        prepare(config, use_ray=False)
    assert files_below(root) == expected
    assert not any(each.exists() for each in temporary)
    assert kept.items() <= {each.url: each.version for each in storage.list_objects(root + KEPT)}.items()


def _prepare_until(config: Config, stage: str, folder: Path) -> None:
    """Prepare in a process of its own that is killed at a stage; the folder takes its temporary files."""
    function, number, _ = STAGES[stage]
    process = PROCESSES.Process(
        target=prepare_until,
        args=(dump_config(config), function, number),
        kwargs={"environment": dict(os.environ), "temporary": str(folder)},
        daemon=True,
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL

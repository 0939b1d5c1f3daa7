"""`scaletrain plan`: what it prints for a real configuration, and what it says of input that is wrong."""

import json
from pathlib import Path

import pytest
from shapes import LLAMA_70B
from typer.testing import CliRunner

from scaletrain.cli import app

ROOT = Path(__file__).parents[2]


def run_plan(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    result = CliRunner().invoke(app, ["plan", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def big(tmp_path: Path) -> str:
    """A configuration for 70 billion parameters, of which only the config.json is there."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA_70B))
    file = tmp_path / "big.yaml"
    file.write_text(
        f"name: big\nstorage: {{root: {tmp_path}/bucket}}\nmodel: {{source: {tmp_path}/model}}\n"
        "data: {corpora: [{format: messages, source: talk.jsonl}], seq_len: 4096}\n"
        "train: {steps: 1000, global_batch_size: 256, micro_batch_size: auto}\n"
        "zero: {stage: 3}\nscaling: {workers: 64}\n"
    )
    return str(file)


def test_70_billion_parameters_without_weights_or_torch(big: str) -> None:
    """The states are exact, the way that fits is named, machines are compared; nothing heavy is imported for it."""
    code, stdout, stderr = run_plan(big, "--machine", "p5.48xlarge", "--json")
    assert code == 0, stderr
    found = json.loads(stdout)
    assert found["model"]["parameters"] == 70_553_706_496
    assert found["configured"]["memory"]["device"]["optimizer"]["low"] == 12 * 70_553_706_496 // 64
    assert found["best"]["verdict"] == "fits"
    assert {"p4d.24xlarge", "g6e.xlarge"} <= {each["machine"] for each in found["machines"]}
    code, stdout, _ = run_plan(big, "--machine", "p5.48xlarge", "--workers", "128")
    assert "the cheapest way that fits: zero.stage=3" in stdout


def test_a_cluster_file_says_which_machines(big: str, tmp_path: Path) -> None:
    """Its GPU machines with their market, its region and its head are what is planned for."""
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "cluster_name: mine\nmax_workers: 4\nprovider: {type: aws, region: us-west-2}\nauth: {ssh_user: ubuntu}\n"
        "head_node_type: head\navailable_node_types:\n"
        "  head: {resources: {CPU: 0}, max_workers: 0, node_config: {InstanceType: m7i.xlarge}}\n"
        "  cpu: {resources: {CPU: 8}, max_workers: 4, node_config: {InstanceType: m7i.2xlarge}}\n"
        "  gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 4, node_config: {InstanceType: g6.xlarge,\n"
        "        InstanceMarketOptions: {MarketType: spot}}}\n"
    )
    code, stdout, stderr = run_plan(big, "--cluster", str(file), "--workers", "4", "--json")
    assert code == 0, stderr
    configured = json.loads(stdout)["configured"]
    assert (configured["machine"], configured["machines"], configured["verdict"]) == ("g6.xlarge", 4, "does not fit")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("p3.2xlarge", "p3.2xlarge: its GPU, V100, is too old: torch is built for CUDA 13"),
        ("n1-standard-8+1xV100", "its GPU, V100, is too old"),
        ("p3.2xlarg", "no machine type that is known here; did you mean"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_refused_and_not_offered(big: str, name: str, told: str) -> None:
    """The run would fail on rented machines."""
    code, _, stderr = run_plan(big, "--machine", name)
    said = " ".join(stderr.split())
    assert (code, told in said) == (2, True), said
    assert "p3" not in said.partition("did you mean")[2]


def test_the_shipped_quickstart_can_be_planned() -> None:
    """launch/configs/quickstart-gpu.yaml on one L4: 135 million parameters fit."""
    pytest.importorskip("gguf")
    code, stdout, stderr = run_plan(
        str(ROOT / "launch/configs/quickstart-gpu.yaml"), "--machine", "g6.xlarge", "--json"
    )
    assert code == 0, stderr
    found = json.loads(stdout)
    assert found["model"]["parameters"] == 134_515_008
    assert found["configured"]["verdict"] == "fits"


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    """A field, a machine type and options that exclude each other, in one message; exit code 2."""
    file = tmp_path / "run.yaml"
    file.write_text("name: run\nmodel: {source: m}\ndata: {corpora: []}\ntrain: {steps: 0}\n")
    code, _, stderr = run_plan(str(file), "--machine", "g6.xlarg", "--cluster", "cluster.yaml")
    assert code == 2
    for words in ("--cluster and --machine", "train.steps: got 0", "data.corpora", "did you mean g6.xlarge"):
        assert words in stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "plan needs a CONFIG"),
        (("run.yaml", "--score", "mine"), "--score RUN goes alone"),
        (("--score", "mine", "--root", "nowhere"), "there is no run"),
    ],
)
def test_wrong_usage_says_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    """Exit code 2 and one line."""
    code, _, stderr = run_plan(*arguments)
    assert code == 2
    assert words in stderr


def test_a_gpu_that_is_not_there_is_an_error(big: str) -> None:
    """train.device=cuda on a machine without one says to name a machine."""
    code, _, stderr = run_plan(big, "train.device=cuda")
    if not Path("/dev/nvidiactl").exists():
        assert code == 2
        assert "--machine" in stderr

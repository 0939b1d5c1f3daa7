"""submission: a command is checked before anything is sent, and what is sent names its configuration by URL."""

import shlex
from pathlib import Path

import pytest

from scaletrain.cli_jobs import _parse
from scaletrain.cluster.cluster_file import ClusterFile, load_cluster_file
from scaletrain.cluster.submission import check_submission
from scaletrain.config_file import parse_config
from scaletrain.errors import ConfigError

CLUSTER = """
cluster_name: test
metadata: {bucket: "s3://bucket/root"}
max_workers: 4
provider: {type: aws, region: us-west-2, cache_stopped_nodes: false}
auth: {ssh_user: ubuntu}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {InstanceType: m7i.xlarge}}
  gpu: {resources: {CPU: 4, GPU: 1}, min_workers: 0, max_workers: 2, node_config: {InstanceType: g6.xlarge}}
"""
RUN = """
name: talk
storage: {root: s3://bucket/root}
model: {source: HuggingFaceTB/SmolLM2-135M-Instruct}
data: {corpora: [{format: chitchat, source: "s3://bucket/raw/*.json"}]}
train: {steps: 10}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterFile:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return load_cluster_file(path)


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return str(path)


def test_the_configuration_goes_by_url_with_its_overrides(cluster: ClusterFile, run_file: str) -> None:
    """The entry point names an object below the run; the overrides are resolved into it."""
    submission = check_submission(cluster, _parse(["train", run_file, "train.steps=20"]))
    words = shlex.split(submission.request.entry_point)
    assert words[:3] == ["python", "-m", "scaletrain.job_entry"]
    assert words[-2:] == ["train", submission.config_url]
    assert submission.config_url == f"s3://bucket/root/runs/talk/submitted/{submission.request.id}.yaml"
    assert parse_config(submission.config_text, source="x").train.steps == 20


def test_every_problem_is_listed_before_anything_is_sent(cluster: ClusterFile, run_file: str, tmp_path: Path) -> None:
    """A folder of this machine, too many workers, a secret, and an odd reference: four problems, four remedies."""
    overrides = ["storage.root=bucket", "scaling.workers=3", f"data.corpora.0.source={tmp_path}/x.json"]
    with pytest.raises(ConfigError) as caught:
        check_submission(
            cluster, _parse(["train", run_file, *overrides]), env=["HF_TOKEN=x"], secret_references=["HF_TOKEN=hf"]
        )
    found = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5, found
    for part in (
        "--env HF_TOKEN",
        "--secret HF_TOKEN=hf",
        "storage.root=s3://bucket/root",
        "put it into the bucket",
        "scaling.workers: got 3",
    ):
        assert part in found


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["serve"], "serve"),
        (
            ["sweep", "sweep.search=tpe", "sweep.trials=3", "sweep.parameters={train.eps: {log: [1.0e-9, 1.0e-7]}}"],
            "sweep",
        ),
        (["evaluate", "--tasks=x"], "evaluate"),
        (["train", "train.optimizer=adamw_8bit", "train.device=cpu"], "gpu"),
        (["train", "model.lora.quantization=nf4", "train.device=cpu"], "gpu"),
    ],
)
def test_a_job_whose_extra_the_cluster_does_not_install_is_refused(
    words: list[str], extra: str, run_file: str, tmp_path: Path
) -> None:
    """It would fail on rented machines, minutes later; where the file names the extra, it is sent."""
    command = _parse([words[0], run_file, *words[1:]])
    file = tmp_path / "file.yaml"
    file.write_text(CLUSTER + "setup_commands: [bash ~/scaletrain/setup.sh aws]\n")
    with pytest.raises(ConfigError, match=rf"write bash ~/scaletrain/setup\.sh aws,{extra} for "):
        check_submission(load_cluster_file(file), command)
    file.write_text(CLUSTER + f"setup_commands: ['bash ~/scaletrain/setup.sh aws,{extra}']\n")
    check_submission(load_cluster_file(file), command)


def test_a_job_that_needs_no_extra_is_sent_to_a_plain_cluster(run_file: str, tmp_path: Path) -> None:
    """As the shipped file is; nor one whose extra machines with GPUs get by themselves."""
    file = tmp_path / "file.yaml"
    file.write_text(CLUSTER + "setup_commands: [bash ~/scaletrain/setup.sh aws]\n")
    for name in ("train", "evaluate", "prepare"):
        check_submission(load_cluster_file(file), _parse([name, run_file]))
    for setting in ("train.optimizer=adamw_8bit", "model.lora.quantization=nf4"):
        check_submission(load_cluster_file(file), _parse(["train", run_file, setting]))


def test_a_secret_of_another_cloud_is_refused(cluster: ClusterFile, run_file: str) -> None:
    """The head could not read it, minutes later."""
    with pytest.raises(ConfigError, match="the head is on aws; write NAME=ssm:PARAMETER"):
        check_submission(cluster, _parse(["train", run_file]), secret_references=["HF_TOKEN=gcp:scaletrain-hf"])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["chat", "x"], "cannot be a job"),
        (["trian", "x.yaml"], "no such command"),
        (["train", "x.yaml", "--fast"], "No such option"),
        (["train", "nowhere.yaml"], "not found"),
        (["export", "talk", "folder"], "name its CONFIG file"),
    ],
)
def test_what_cannot_be_a_job_is_refused(cluster: ClusterFile, words: list[str], problem: str) -> None:
    """The parser that would read the command there reads it here first."""
    with pytest.raises(ConfigError, match=problem):
        check_submission(cluster, _parse(words))


def test_local_training_is_refused(cluster: ClusterFile, run_file: str) -> None:
    """It would train on the head, which has no GPU and must not be lost."""
    with pytest.raises(ConfigError, match="--local: would train on the head"):
        check_submission(cluster, _parse(["train", run_file, "--local"]))


def test_evaluation_asks_for_a_gpu_of_its_own_and_training_for_none(cluster: ClusterFile, run_file: str) -> None:
    """Training gives its work to workers; an evaluation is the work."""
    evaluation = check_submission(cluster, _parse(["evaluate", run_file, "--step", "5"])).request
    training = check_submission(cluster, _parse(["train", run_file])).request
    on_cpu = check_submission(cluster, _parse(["evaluate", run_file, "train.device=cpu"])).request
    assert (evaluation.num_gpus, training.num_gpus, training.num_cpus) == (1, 0, 0)
    assert (on_cpu.num_gpus, on_cpu.num_cpus) == (0, 1)
    assert "--step 5" in evaluation.entry_point


def test_serving_is_a_job_of_the_head_which_keeps_its_options(cluster: ClusterFile, run_file: str) -> None:
    """Replicas ask for their GPUs themselves; settings are resolved into the configuration that goes along."""
    words = ["serve", run_file, "serve.port=9000", "--replicas", "1-4"]
    submission = check_submission(cluster, _parse(words))
    sent = shlex.split(submission.request.entry_point)
    assert sent[-4:] == ["serve", submission.config_url, "--replicas", "1-4"]
    assert parse_config(submission.config_text, source="x").serve.port == 9000


def test_a_reference_to_a_secret_is_all_that_is_sent(cluster: ClusterFile, run_file: str) -> None:
    """The head reads the secret by itself."""
    submission = check_submission(
        cluster, _parse(["train", run_file]), secret_references=["HF_TOKEN=ssm:/scaletrain/hf-token"]
    )
    assert "--secret HF_TOKEN=ssm:/scaletrain/hf-token" in submission.request.entry_point


def test_a_key_in_the_configuration_is_refused(cluster: ClusterFile, run_file: str) -> None:
    """The configuration lies in the bucket for everybody who may read the run."""
    with pytest.raises(ConfigError, match="a password in a URL"):
        check_submission(cluster, _parse(["train", run_file, "data.corpora.0.source=s3://me:word@bucket/x"]))

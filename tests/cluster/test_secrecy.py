"""secrecy: what looks like a secret is found before it is sent, and never repeated."""

import pytest

from scaletrain.cluster.secrecy import secret_problems, variable_problems


@pytest.mark.parametrize(
    "text",
    [
        "--token=hf_" + "a1B2" * 8,
        "AKIA" + "ABCDEFGH12345678",
        "s3://user:pass-word@bucket/x",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_a_secret_is_found_and_not_shown(text: str) -> None:
    """Tokens, keys and passwords in URLs are refused with a line that does not have them in it."""
    (problem,) = secret_problems([text], place="the command line")
    assert problem.startswith("the command line: has ")
    assert text.rpartition("=")[2] not in problem


@pytest.mark.parametrize("text", ["train.steps=200", "s3://bucket/run.yaml", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_what_is_no_secret_passes(text: str) -> None:
    """Ordinary arguments are left alone."""
    assert list(secret_problems([text], place="x")) == []


@pytest.mark.parametrize("variable", ["HF_TOKEN=x", "AWS_SECRET_ACCESS_KEY=x", "wandb_api_key=x", "DB_PASSWORD=x"])
def test_a_variable_named_like_a_secret_is_refused(variable: str) -> None:
    """A runtime environment is shown by Ray to everybody, so its name alone is enough."""
    (problem,) = variable_problems([variable])
    assert "--secret" in problem


def test_other_variables_pass() -> None:
    """What is no secret may be set."""
    assert list(variable_problems(["NCCL_DEBUG=INFO", "TOKENIZERS_PARALLELISM=false", "KEYBOARD=us"])) == []


def test_what_is_no_variable_is_refused() -> None:
    """NAME=VALUE is the only form."""
    assert list(variable_problems(["NCCL_DEBUG"])) == ["--env NCCL_DEBUG: write NAME=VALUE"]

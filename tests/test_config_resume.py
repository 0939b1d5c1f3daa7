"""config_file: what a run may change when it goes on, and what it may not."""

import pytest

from scaletrain.config import Config
from scaletrain.config_file import changed_fields, check_resume, parse_config
from scaletrain.errors import ConfigError

BEGUN = """\
name: begun
model: {source: some/model}
data:
  corpora:
    - {format: messages, source: "raw/*.jsonl"}
train: {steps: 10}
"""


def parse(*overrides: str) -> Config:
    return parse_config(BEGUN, source="run.yaml", overrides=overrides)


def test_changed_fields_have_their_path_and_both_values() -> None:
    """Differences are named down to the entry of a list; a list of another length is one difference."""
    new = parse("train.steps=20", "data.corpora.0.limit=5", "data.cleaning=[merge_turns]")
    assert changed_fields(parse(), new) == [
        ("data.corpora.0.limit", None, 5),
        ("data.cleaning", list(parse().data.cleaning), ["merge_turns"]),
        ("train.steps", 10, 20),
    ]
    assert changed_fields(new, new) == []


@pytest.mark.parametrize(
    "override",
    [
        "scaling.workers=4",
        "scaling.workers={min: 1, max: 2}",
        "zero.stage=3",
        "zero.offload_optimizer=cpu",
        "train.micro_batch_size=2",
        "train.device=cpu",
        "train.evaluate_every_steps=5",
        "train.evaluate_rows=5",
        "train.timeout_s=5",
        "storage.root=s3://elsewhere",
        "checkpoint.every_steps=5",
        "evaluate.max_new_tokens=5",
        "track.tensorboard=false",
        "debug.stop_after=5",
        "model.attention=sdpa",
        "model.gradient_checkpointing=true",
        "model.gradient_checkpointing=selective",
        "model.gradient_checkpointing=0.5",
    ],
)
def test_what_leaves_the_mathematics_alone_may_change(override: str) -> None:
    """Where and on how many workers a run goes on is free."""
    check_resume(parse(), parse(override))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "name=other",
        "model.source=elsewhere",
        "model.lora={rank: 4}",
        "model.lora={quantization: nf4}",
        "data.seq_len=512",
        "data.corpora.0.limit=5",
        "train.learning_rate=1e-3",
        "train.global_batch_size=32",
        "train.precision=bf16",
        "train.optimizer=adamw_8bit",
        "train.deterministic=true",
    ],
)
def test_what_alters_the_mathematics_is_refused(override: str) -> None:
    """A run that has begun keeps its data, model and optimisation; the field is named with both values."""
    path = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{path}[^:]*: was .*, is .*; that would change the mathematics"):
        check_resume(parse(), parse(override))


def test_all_changes_are_named_at_once() -> None:
    """Each change that is not allowed has its line."""
    with pytest.raises(ConfigError) as raised:
        check_resume(parse(), parse("seed=1", "train.learning_rate=1", "zero.stage=0"))
    assert [each.partition(":")[0] for each in raised.value.problems] == ["seed", "train.learning_rate"]


def test_only_a_constant_schedule_lets_a_run_grow() -> None:
    """With cosine or linear the length sets every learning rate; with constant a run may become longer, not shorter."""
    constant = parse("train.schedule=constant")
    check_resume(constant, parse("train.schedule=constant", "train.steps=20"))
    with pytest.raises(ConfigError, match=r"train.steps: was 10, is 5; a run can grow, not shrink"):
        check_resume(constant, parse("train.schedule=constant", "train.steps=5"))
    with pytest.raises(ConfigError, match=r"train.steps: was 10, is 20; the cosine schedule sets every learning rate"):
        check_resume(parse(), parse("train.steps=20"))
    with pytest.raises(ConfigError, match=r"train.epochs: was null, is 2.0"):
        check_resume(constant, parse("train.schedule=constant", "train.steps=null", "train.epochs=2"))

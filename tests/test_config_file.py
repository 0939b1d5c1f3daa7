"""config_file: files and overrides to a Config, and every mistake told at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain import storage, yaml_text
from scaletrain.config import Config, WorkerRange
from scaletrain.config_file import dump_config, load_config, parse_config
from scaletrain.config_model import LoraSection
from scaletrain.errors import ConfigError

GOOD = """\
name: good
model: {source: some/model}
data:
  corpora:
    - {format: messages, source: "raw/*.jsonl"}
train: {steps: 10}
"""


def parse(*overrides: str, text: str = GOOD) -> Config:
    return parse_config(text, source="run.yaml", overrides=overrides)


def problems(*overrides: str, text: str = GOOD) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(*overrides, text=text)
    return list(raised.value.problems)


# --- Reading ------------------------------------------------------------------------------------------------------


def test_the_file_wins_over_defaults_and_overrides_win_over_the_file() -> None:
    """Precedence: defaults < file < command line, the last of two overrides."""
    config = parse("train.steps=20", "train.steps=30", text=GOOD + "seed: 7\n")
    assert (config.zero.stage, config.seed, config.train.steps) == (2, 7, 30)


def test_a_configuration_is_read_from_a_url(bucket_root: str) -> None:
    """A file may lie in a bucket."""
    url = storage.join(bucket_root, "runs/a/config.yaml")
    storage.write_text(url, GOOD)
    assert load_config(url).name == "good"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.learning_rate=3e-4", 3e-4),
        ("train.learning_rate=1E-3", 1e-3),
        ("train.learning_rate=.5", 0.5),
        ("train.betas=[0.8, 0.9]", (0.8, 0.9)),
        ("train.deterministic=true", True),
        ("train.epochs=null", None),
        ("model.lora={rank: 4}", LoraSection(rank=4)),
        ("scaling.workers=3", 3),
        ("scaling.workers={min: 2, max: 4}", WorkerRange(min=2, max=4)),
        ("data.corpora.0.limit=10", 10),
        ("data.corpora.0.source=*.json", "*.json"),
        ("data.system_prompt=Be kind: say # and 'yes'", "Be kind: say # and 'yes'"),
        ("data.system_prompt='007'", "007"),
        ("data.system_prompt=a=b", "a=b"),
        ("data.corpora.0.name=no", "no"),
        ("storage.options.endpoint_url=http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("debug.stop_after=010", 10),
    ],
)
def test_overrides_are_values_of_yaml(override: str, value: Any) -> None:
    """A value is a YAML scalar, list or mapping; other text stands for itself; numbers index lists."""
    found: Any = parse(override)
    for part in override.partition("=")[0].split("."):
        found = (
            found[int(part)] if part.isdecimal() else found[part] if isinstance(found, dict) else getattr(found, part)
        )
    assert found == value


def test_null_stands_for_the_default() -> None:
    """A null in the file or on the command line clears what came before it."""
    text = GOOD.replace("{steps: 10}", "{steps: 10, learning_rate: null}")
    assert parse(text=text).train.learning_rate == 2e-5
    config = parse("train.steps=null", "train.epochs=2", "data.corpora.0.limit=5", "data.corpora.0.limit=null")
    assert (config.train.steps, config.train.epochs, config.data.corpora[0].limit) == (None, 2.0, None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        ("5.", 5.0),
        ("-.5e1", -5.0),
        (".inf", float("inf")),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("'3e-4'", "3e-4"),
        ("=", "="),
    ],
)
def test_the_traps_of_yaml_1_1_are_shut(written: str, meant: Any) -> None:
    """Scalars have the types of YAML 1.2, in a file as on the command line."""
    in_file = yaml_text.parse(f"key: {written}", source="x")[0]["key"]
    alone = yaml_text.parse_value(written, source="x")
    assert in_file == alone == meant
    assert type(in_file) is type(alone) is type(meant)


def test_language_codes_survive() -> None:
    """`no` is Norwegian where text is expected, and no where a boolean is."""
    config = parse("data.corpora.0.name=no", "track.tensorboard=no")
    assert config.data.corpora[0].name == "no" and config.track.tensorboard is False


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    """The command line answers at once, so a configuration is read without ray, torch, fsspec and their like."""
    program = (
        "import sys, scaletrain.config_file as f; f.parse_config(sys.argv[1], source='x');"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'ray', 'torch', 'transformers', 'deepspeed', 'fsspec', 's3fs', 'pyarrow', 'numpy', 'boto3', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", program, GOOD], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Mistakes -----------------------------------------------------------------------------------------------------


def test_five_mistakes_are_five_problems_with_a_remedy() -> None:
    """All mistakes are told at once, one line each: where, what was got, what to do."""
    text = """\
name: five mistakes
model: {source: x}
data:
  corpora: [{format: messages, source: x}]
  sequence_length: 512
train: {steps: many, global_batch_size: 64, micro_batch_size: 3}
zero: {stage: 5}
"""
    assert problems(text=text) == [
        "name: got 'five mistakes'; give a name for the run, of letters, digits and . _ - "
        "(it begins with a letter or digit)",
        "data.sequence_length: unknown key; did you mean data.seq_len?",
        "train.steps: got 'many'; give a whole number",
        "zero.stage: got 5; give 0, 1, 2 or 3",
        "train.micro_batch_size: got 3, which does not divide global_batch_size=64; use 2",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.learning_rat=1", "train.learning_rat: unknown key; did you mean train.learning_rate?"),
        ("trian.steps=1", "trian: unknown key; did you mean train?"),
        ("workers=2", "workers: unknown key; did you mean scaling.workers?"),
        ("train.stage=2", "train.stage: unknown key; did you mean zero.stage?"),
        ("train.batch_size=2", "did you mean train.micro_batch_size or train.global_batch_size?"),
        ("data.corpora.0.fromat=x", "data.corpora.0.fromat: unknown key; did you mean data.corpora.0.format?"),
        ("zero.colour=red", "unknown key; remove it; known here are stage, offload_optimizer, offload_parameters"),
        ("train.steps=1.5", "train.steps: got 1.5; give a whole number"),
        ("train.steps=true", "train.steps: got true; give a number"),
        ("train.steps=0", "train.steps: got 0; give at least 1"),
        ("train.learning_rate=0", "train.learning_rate: got 0; give more than 0"),
        ("train.learning_rate=.inf", "train.learning_rate: got .inf; give a finite number"),
        ("train.learning_rate=fast", "train.learning_rate: got 'fast'; give a number"),
        ("train.device=gpu", "train.device: got 'gpu'; give auto, cuda or cpu"),
        ("train.betas=0.9", "train.betas: got 0.9; give a list, as [a, b]"),
        ("train.betas=[1, 2, 3]", "train.betas: got a list of 3; give 2 entries"),
        ("data.corpora=[]", "data.corpora: got a list of 0; give a list of {format, source}"),
        ("data.corpora=[x]", "data.corpora.0: got 'x'; give key: value pairs; known keys are format, source"),
        ("data.validation=1", "data.validation: got 1; give at most 0.5"),
        ("name=7", "name: got 7; give text; in quotes, if it looks like a number"),
        ("storage.root=''", "storage.root: got ''; give any fsspec URL"),
        ("storage.options.ports=[1]", "storage.options.ports: got a list of 1; give text, a number, true or false"),
        ("model=x", "model: got 'x'; give key: value pairs; known keys are init, source"),
        ("scaling.workers=0", "scaling.workers: got 0; give at least 1"),
        ("scaling.workers=many", "scaling.workers: got 'many'; give a whole number"),
        ("scaling.workers.min=2", "scaling.workers.max: missing; give the most workers to train with"),
        ("scaling.workers={min: 3, max: 2}", "scaling.workers.min: got 3, which is above max=2; swap them"),
        ("model.lora={target_modules: all}", "model.lora.target_modules: got 'all'; give all-linear"),
        ("track.tensorboard=7", "track.tensorboard: got 7; give true or false"),
        ("train", "train: is no override; write section.key=value, as train.steps=100"),
        ("train.steps=", "train.steps: has no value; write train.steps=null for the default"),
        ("train.steps.x=1", "train.steps.x: train.steps is 10, without keys; give it as a whole"),
        ("data.corpora.4.limit=1", "data.corpora has 1 entries, numbered from 0; there is no entry 4"),
        ("data.corpora.first.limit=1", "data.corpora has 1 entries, numbered from 0; there is no entry first"),
        ("zero={stage: 3", "zero:1:"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(override: str, problem: str) -> None:
    """One mistake makes one problem, in our words: no class names, no links, no branches of a union."""
    found = problems(override)
    assert len(found) == 1 and problem in found[0]
    assert not any(word in found[0] for word in ("pydantic", "Section", "Input should", "http", "[type="))


def test_a_misspelt_key_is_not_also_missing() -> None:
    """Who wrote `stesp` is told so, and not that steps are missing."""
    assert problems(text=GOOD.replace("steps", "stesp")) == ["train.stesp: unknown key; did you mean train.steps?"]
    assert problems(text=GOOD.replace("format", "fromat")) == [
        "data.corpora.0.fromat: unknown key; did you mean data.corpora.0.format?"
    ]


def test_what_a_misspelt_key_holds_is_checked_too() -> None:
    """The value of a misspelt key is checked as if the key were right."""
    assert problems(text=GOOD.replace("train: {steps: 10}", "trian: {steps: ten}")) == [
        "trian: unknown key; did you mean train?",
        "train.steps: got 'ten'; give a whole number",
    ]


def test_missing_sections_say_what_to_give() -> None:
    """Everything that a run needs is asked for at once."""
    found = problems(text="seed: 1")
    assert [each.partition(":")[0] for each in found] == ["name", "model", "data", "train"]
    assert all("missing; give a" in each for each in found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "run.yaml: is empty"),
        ("# only a comment\n", "run.yaml: is empty"),
        ("- a\n- b\n", "run.yaml: has no keys"),
        ("just text", "run.yaml: has no keys"),
        ("name: a\ntrain:\n\tsteps: 1\n", "run.yaml:3:1: a tab; indent with spaces"),
        ("name: a\nmodel: {source: [x\n", "run.yaml:3:1: expected ',' or ']'"),
        ("name: a: b\n", "run.yaml:1:8: a colon too many"),
        ("name: @a\n", "run.yaml:1:7: found character '@'"),
        ("name: *a\n", "run.yaml:1:7: found undefined alias 'a'; put the text in quotes"),
        ("name: !!python/name:os.system x\n", "run.yaml:1:7: a tag (!...) that is not allowed"),
        ("name: a\n---\nname: b\n", "run.yaml:2:1: a second document begins"),
        ('{"messages": []}\n{"messages": []}\n', "run.yaml:2:1: something stands behind the end of the document"),
        ("1: a\n", "run.yaml:1:1: a key that is not text; put it in quotes"),
        ("[a]: b\n", "run.yaml:1:1: a key that is not text"),
        ("name: \x01\n", "run.yaml: special characters are not allowed"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_place(text: str, problem: str) -> None:
    """A file that cannot be read is told by file, line and column."""
    found = problems(text=text)
    assert len(found) == 1 and found[0].startswith(problem)


def test_a_key_given_twice_is_an_error() -> None:
    """YAML readers take the last of two equal keys silently; here both lines are named, with the other mistakes."""
    text = GOOD + "seed: 1\nseed: 2\nzero: {stage: 7}\n"
    assert problems(text=text) == [
        "run.yaml:8: seed is given twice, first in line 7; remove one of them",
        "zero.stage: got 7; give 0, 1, 2 or 3",
    ]


def test_a_key_without_a_value_is_an_error() -> None:
    """`lora:` alone would silently train without LoRA."""
    text = GOOD.replace("{source: some/model}", "\n  source: x\n  lora:\n")
    assert problems(text=text) == ["run.yaml:4: lora has no value; give one, or remove the line (null is the default)"]


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    """A missing file, a folder and a file in another encoding are errors of the user's, each with its reason."""
    (tmp_path / "latin.yaml").write_bytes("name: größe".encode("latin-1"))
    for name, reason in [("none.yaml", "not found"), (".", "is a folder"), ("latin.yaml", "is not UTF-8 text")]:
        with pytest.raises(ConfigError, match=reason):
            load_config(str(tmp_path / name))


def test_a_windows_file_is_read(tmp_path: Path) -> None:
    """A byte order mark and Windows line ends do no harm."""
    (tmp_path / "run.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_config(str(tmp_path / "run.yaml")) == parse()


SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from([*Config.model_fields, "steps", "source", "corpora", "min", "options", "workers", "lora", "x"])
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=6))
def test_whatever_is_written_is_accepted_or_explained(tree: dict[str, Any]) -> None:
    """Any tree of values either is a configuration or is a ConfigError of whole lines; nothing else escapes."""
    try:
        parse(text=yaml_text.dump(tree) if tree else "{}")
    except ConfigError as error:
        assert error.problems and all(each and "Input should" not in each for each in error.problems)


# --- Writing ------------------------------------------------------------------------------------------------------


def test_a_stored_configuration_is_read_back_equal() -> None:
    """What a run stores is the configuration it ran with, every field of it."""
    config = parse(
        "model.lora.target_modules=[q_proj, no, '3e-4']",
        "scaling.workers={min: 1, max: 4}",
        "storage.options={endpoint_url: 'http://x', anon: true, retries: 3, factor: 1.5, text: 'yes'}",
        "data.system_prompt='line\n\n  indented: # 更大'",
        "train.learning_rate=3e-4",
        "train.timeout_s=1e16",
    )
    text = dump_config(config)
    assert parse(text=text) == config
    assert text.startswith("name: good\n") and "learning_rate: 0.0003" in text and "lora:\n    rank: 16" in text


@given(st.text() | st.sampled_from(["no", "3e-4", "010", "1:30", "null", "", "~", "=", "<<", "0x1", ".5", "true", "-"]))
def test_text_is_read_back_as_the_same_text(text: str) -> None:
    """No text turns into a number, a boolean or nothing on its way through a file, for readers of YAML 1.1 neither."""
    written = yaml_text.dump({"key": text})
    assert yaml_text.parse(written, source="x") == ({"key": text}, [])
    assert yaml.safe_load(written) == {"key": text}


@given(st.floats(allow_nan=False) | st.integers(-(10**30), 10**30) | st.booleans())
def test_numbers_are_read_back_exactly(number: float) -> None:
    """Numbers keep their value and their type."""
    (read,) = yaml_text.parse(yaml_text.dump([number]), source="x")[0]
    assert read == number and type(read) is type(number)

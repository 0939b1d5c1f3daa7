"""packages: what a run uses of optional packages is decided where its workers are."""

import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from scaletrain.config_file import parse_config
from scaletrain.train import packages

RUN = """
name: big
storage: {root: bucket}
model: {source: x}
data: {corpora: [{format: messages, source: y}]}
train: {steps: 1}
"""
# A process of a machine that has one more package than this one, and gets the question as Ray brings it there.
WORKER = "import pickle, sys; print(pickle.load(sys.stdin.buffer)())"


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ((), "cuda", False),
        (("zero.stage=3",), "cuda", True),
        (("zero.stage=3",), "cpu", False),
        (("zero.stage=3", "model.kernels=plain"), "cuda", False),
        (("model.kernels=liger",), "cuda", True),
        (("model.kernels=liger",), "cpu", False),
        (("train.optimizer=adamw_8bit",), "cpu", True),
        (("model.lora={quantization: nf4}",), "cuda", True),
    ],
)
def test_workers_are_asked_only_where_it_matters(settings: tuple[str, ...], device: str, expected: bool) -> None:
    """They may have to be rented first."""
    config = parse_config(RUN, source="run", overrides=settings)
    assert packages.matter(config, device) is expected  # type: ignore[arg-type]


def test_kernels_are_those_of_the_place_that_is_asked(tmp_path: Path) -> None:
    """The head has no GPU and no Liger; its worker has."""
    (tmp_path / "liger_kernel").mkdir()
    (tmp_path / "liger_kernel/__init__.py").touch()
    look = partial(packages.look, parse_config(RUN, source="run", overrides=("zero.stage=3",)), "cuda")
    path = f"{tmp_path}:{':'.join(sys.path)}"
    command = [sys.executable, "-c", WORKER]
    told = subprocess.run(command, input=pickle.dumps(look), env={"PYTHONPATH": path}, capture_output=True, check=True)
    assert told.stdout.decode().strip() == "liger"

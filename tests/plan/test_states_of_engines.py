"""plan/states.py against real engines: the bytes of their tensors are those that are forecast, to the last one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scaletrain.config_model import LoraSection
from scaletrain.model.settings import shape_at
from scaletrain.model.shape import split_trained
from scaletrain.plan.states import states_of
from tiny import tiny_model_folder

_8_BIT = "train.optimizer=adamw_8bit"
_LORA = "model.lora={rank: 4}"
_QLORA = "model.lora={rank: 4, quantization: nf4}"
SETTINGS: list[dict[str, Any]] = [
    *({"stage": stage, "precision": "fp32"} for stage in (0, 2, 3)),
    {"stage": 1, "precision": "fp32", "rounds": 2},  # it holds most between two micro batches
    *({"stage": stage, "precision": "bf16"} for stage in (1, 2, 3)),
    {"stage": 2, "precision": "bf16", "overrides": [_LORA]},
    *({"stage": stage, "precision": "bf16", "overrides": [_8_BIT]} for stage in (0, 1, 2)),
    *({"stage": stage, "precision": "bf16", "overrides": [_QLORA]} for stage in (0, 1, 2)),
    {"stage": 2, "precision": "fp32", "overrides": [_QLORA, _8_BIT]},
]


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.long)])
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A tiny model whose sizes divide by nothing, and what each of some workers counted of each engine."""
    from scaletrain.model import store

    workers = request.param
    folder = tmp_path_factory.mktemp("engines")
    tiny_model_folder(folder / "plain", vocab_size=321, intermediate_size=97)
    store.publish(folder / "plain", str(folder / "model"), source="tiny")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = str(Path(__file__).with_name("engine_states.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(workers), str(folder), json.dumps(SETTINGS)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(workers)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
    return folder / "model", [json.loads((folder / f"counted-{rank}.json").read_text()) for rank in range(workers)]


def test_states_are_exact(counted: tuple[Path, list[Any]]) -> None:
    """Parameters, gradients and optimizer of the fullest worker, at each stage and precision, LoRA, 8 and 4 bits."""
    model, of_workers = counted
    shape, wrong = shape_at(str(model)), []
    for number, settings in enumerate(SETTINGS):
        overrides = settings.get("overrides", ())
        lora = LoraSection.model_validate({"rank": 4}) if {_LORA, _QLORA} & set(overrides) else None
        trained, frozen = split_trained(shape, lora)
        expected = states_of(
            trained,
            frozen,
            stage=settings["stage"],
            num_workers=len(of_workers),
            precision=settings["precision"],
            optimizer="adamw_8bit" if _8_BIT in overrides else "adamw",
            quantized=_QLORA in overrides,
        )
        for part in ("parameters", "gradients", "optimizer"):
            found = max(each[number][part] for each in of_workers)
            if found != getattr(expected, part):
                wrong.append(f"{settings}: {part} are {found}, forecast {getattr(expected, part)}")
    assert wrong == []

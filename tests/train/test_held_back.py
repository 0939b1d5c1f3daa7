"""held_back: importing DeepSpeed without what no run uses, each time in a new process."""

import subprocess
import sys

_IMPORT = "import sys, scaletrain.train, deepspeed.runtime.engine\n"


def in_a_new_process(program: str) -> str:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()[-1]


def test_neither_mlflow_nor_the_compiler_comes_with_deepspeed() -> None:
    assert in_a_new_process(_IMPORT + "print('mlflow' in sys.modules, 'torch._inductor.lowering' in sys.modules)") == (
        "False False"
    )


def test_an_optimizer_of_another_kind_is_no_muon() -> None:
    """What every engine asks, with the class that stands for Muon's."""
    program = """
import torch
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
print(isinstance(torch.optim.AdamW([torch.zeros(1, requires_grad=True)]), MuonWithAuxAdam))
"""
    assert in_a_new_process(_IMPORT + program) == "False"


def test_one_real_module_serves_all_who_ask() -> None:
    """Also whoever asked before, and for several things at once."""
    program = """
waiting = sys.modules["deepspeed.runtime.zero.muon.original_muon"]
from deepspeed.runtime.zero.muon.original_muon import Muon, adam_update
real = sys.modules[waiting.__name__]
print(waiting is not real, waiting.Muon is real.Muon is Muon, sys.modules[waiting.__name__] is real)
"""
    assert in_a_new_process(_IMPORT + program) == "True True True"


def test_whoever_asks_for_more_gets_the_real_module() -> None:
    """And what stands for classes and functions of the real one is there under these names."""
    program = """
from scaletrain.train.held_back import _ASKED_FOR
import importlib, torch
from deepspeed.runtime.zero.muon.original_muon import zeropower_via_newtonschulz5
real = sys.modules[zeropower_via_newtonschulz5.__module__]
for name in _ASKED_FOR:
    sys.modules.pop(name)
found = {name: importlib.import_module(name) for name in _ASKED_FOR}
missing = [each for name, asked in _ASKED_FOR.items() for each in asked if not hasattr(found[name], each)]
print(type(real).__name__, missing)
"""
    assert in_a_new_process(_IMPORT + program) == "module []"

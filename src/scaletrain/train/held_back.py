"""Parts of DeepSpeed that it imports for every run and that no run here uses: they wait until somebody asks for them.

They take as long as all the rest of DeepSpeed, in each worker that starts. Its tuner of configurations imports MLflow
wherever that is installed. Its Muon optimizer compiles kernels while it is imported, for which torch's compiler is
loaded; every engine imports it, to see that it has another optimizer.
"""

import importlib
import sys
from types import ModuleType

# What is asked of a module that waits, and gets a class or function that is never used.
_ASKED_FOR = {
    "deepspeed.autotuning.autotuner": ("Autotuner",),
    "deepspeed.runtime.zero.muon.muon_optimizer": ("MuonWithAuxAdam",),
    "deepspeed.runtime.zero.muon.original_muon": ("muon_update",),
}


def hold_back() -> None:
    """Have these modules wait, where they are not imported yet."""
    for name, attributes in _ASKED_FOR.items():
        if name not in sys.modules:
            sys.modules[name] = _Waiting(name, attributes)


class _Waiting(ModuleType):
    """Stands for a module; whoever asks for anything but the attributes that it has gets the real one's."""

    def __init__(self, name: str, attributes: tuple[str, ...]) -> None:
        super().__init__(name)
        for attribute in attributes:
            setattr(self, attribute, type(attribute, (), {}))

    def __getattr__(self, attribute: str) -> object:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(_real(self.__name__), attribute)


def _real(name: str) -> ModuleType:
    """Import a module although another stands for it, which it replaces; once it has, find it."""
    if not isinstance(sys.modules[name], _Waiting):
        return sys.modules[name]
    package = importlib.import_module(name.rpartition(".")[0])
    del sys.modules[name]
    module = importlib.import_module(name)
    setattr(package, name.rpartition(".")[2], module)
    return module

"""The optional packages that a run uses: Liger's kernels, and bitsandbytes for moments of 8 bits or a base in 4.

The machines of its workers have to have them. The head of a cluster, where a run is planned, has no GPU and so none of
what is made for one: there the question is put to a worker.
"""

from typing import Literal

from scaletrain.config import Config
from scaletrain.config_model import quantizes
from scaletrain.devices import check_optimizer, check_quantization
from scaletrain.model.kernels import Kernels, resolve_kernels


def matter(config: Config, device: Literal["cuda", "cpu"]) -> bool:
    """Whether it is of importance to a run which optional packages its workers have."""
    kernels = config.model.kernels
    by_kernels = device == "cuda" and (kernels == "liger" or (kernels == "auto" and config.zero.stage == 3))
    return by_kernels or config.train.optimizer == "adamw_8bit" or quantizes(config.model.lora)


def look(config: Config, device: Literal["cuda", "cpu"]) -> Kernels:
    """The kernels that a run would use where this is called; raises DeviceError for a package that is missing there."""
    check_optimizer(config.train)
    if config.model.lora is not None:
        check_quantization(config.model.lora.quantization)
    return resolve_kernels(config.model.kernels, device, zero_stage=config.zero.stage)

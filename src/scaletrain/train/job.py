"""What an attempt's workers are told: the same for each of them."""

from dataclasses import dataclass
from typing import Literal

from scaletrain.config import Config
from scaletrain.cost import Prices
from scaletrain.devices import Attention
from scaletrain.layout import RunLayout
from scaletrain.model.kernels import Kernels
from scaletrain.this_machine import Machine


@dataclass(frozen=True)
class Accounting:
    """What counting a run's cost takes: the driver's machine (a cluster's head), and what machines cost.

    `asks_cloud`: each worker's machine asks its metadata service what it is.
    """

    driver: Machine
    prices: Prices
    asks_cloud: bool


@dataclass(frozen=True)
class Job:
    """Everything that an attempt's workers need; the same on each of them.

    Device, precision, attention and kernels are resolved (never "auto"); `reader` names who reads the shards: Ray
    Data's tasks, or this process. `attempt` is the fencing token that goes into every manifest, `nonce` that of its
    claim ("": nobody compares it).
    """

    config: Config
    dataset_url: str
    model_url: str
    attempt: int
    total_steps: int
    device: Literal["cuda", "cpu"]
    precision: Literal["fp32", "bf16"]
    attention: Attention
    reader: Literal["ray", "local"]
    kernels: Kernels = "plain"
    nonce: str = ""
    accounting: Accounting | None = None  # None: nobody counts what it costs

    @property
    def run(self) -> RunLayout:
        return RunLayout(self.config.storage.root, self.config.name)

    @property
    def autocasts(self) -> bool:
        """Whether bf16 is autocast: ZeRO 0 keeps fp32 weights; above, the weights themselves are bf16."""
        return self.precision == "bf16" and self.config.zero.stage == 0

    @property
    def last_step(self) -> int:
        """Where this attempt ends, if nobody stops it before."""
        return min(self.total_steps, self.config.debug.stop_after or self.total_steps)

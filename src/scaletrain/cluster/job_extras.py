"""Does a cluster install what a job needs beyond the plain scaletrain: the extras that its set-up commands name.

Machines with a GPU have the extra gpu, whether it is named or not: setup.sh sees to it.
"""

import re
from collections.abc import Iterator

from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.config import Config
from scaletrain.config_model import quantizes

_SETUP = re.compile(r"\bsetup\.sh\s+([\w,]+)")
# A file may install a package by a command of its own, instead of the extra that brings it.
_PACKAGES = {"serve": "starlette", "sweep": "optuna", "evaluate": "lm-eval", "gpu": "bitsandbytes"}


def extra_problems(command: str, arguments: tuple[str, ...], config: Config, cluster: ClusterFile) -> Iterator[str]:
    """Return a problem for each extra that the job needs and the file does not name; nothing without our setup.sh."""
    parts = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    commands = "\n".join(str(each) for part in parts for each in cluster.raw.get(part) or ())
    if not (named := _SETUP.findall(commands)):
        return
    there = [extra for each in named for extra in each.split(",")]
    if config.train.device != "cpu" and (cluster.provider == "local" or any(kind.gpus for kind in cluster.workers)):
        there.append("gpu")
    for extra, what in _needed(command, arguments, config):
        if extra not in there and _PACKAGES[extra] not in commands:
            line = f"bash ~/scaletrain/setup.sh {named[0]}"
            yield f"{what}: {cluster.path} does not install it; write {line},{extra} for {line}, and run `ray up` again"


def _needed(command: str, arguments: tuple[str, ...], config: Config) -> Iterator[tuple[str, str]]:
    """Each extra, and what it is needed for."""
    if command == "serve":
        yield "serve", "serve"
    if command == "sweep" and config.sweep is not None and config.sweep.search == "tpe":
        yield "sweep", "sweep.search=tpe"
    if command == "evaluate" and any(each.partition("=")[0] == "--tasks" for each in arguments):
        yield "evaluate", "--tasks"
    if command in ("train", "sweep") and config.train.optimizer == "adamw_8bit":
        yield "gpu", "train.optimizer=adamw_8bit"
    elif command in ("train", "sweep") and quantizes(config.model.lora):
        yield "gpu", "model.lora.quantization=nf4"

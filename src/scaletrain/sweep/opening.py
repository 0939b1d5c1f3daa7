"""What every command that works on a sweep or a study does: it claims it, and shows that it lives while it works."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

from scaletrain import attempts, ray_cluster, storage
from scaletrain.config import Config
from scaletrain.config_file import changed_fields, dump_config, load_config
from scaletrain.errors import ConfigError
from scaletrain.stop_request import StopRequest
from scaletrain.sweep.records import SweepLayout, read_seconds
from scaletrain.train.trainer import with_absolute_root


@dataclass(frozen=True)
class Opened:
    """A sweep that this command works on: as which attempt, and how many seconds commands before it took."""

    config: Config
    layout: SweepLayout
    attempt: int
    nonce: str
    before_s: float


def open_sweep(
    config: Config,
    *,
    may_change: Callable[[str, object, object], bool],
    noun: str,
    parts: str,
    forget: Callable[[SweepLayout], bool],
) -> Opened:
    """Claim a sweep; `may_change(path, old, new)` says whether a field may differ from the command before.

    Raises ConfigError with every field that may not, or where another command works on it. `noun` and `parts` are what
    messages call it; `forget` drops parts that have nothing to compare, and says whether it could drop all of them.
    """
    storage.configure(config.storage.root, config.storage.options)
    config = with_absolute_root(config)
    layout = SweepLayout(config.storage.root, config.name)
    seen, nonce = attempts.refuse_a_second(layout), attempts.new_nonce()
    if not storage.create(layout.config, dump_config(config).encode()):
        problems = [
            f"{path}: was {old}, is {new}; the {parts} so far would not compare: set it back, or give the new {noun} "
            "another name"
            for path, old, new in changed_fields(load_config(layout.config), config)
            if not may_change(path, old, new)
        ]
        if problems and not forget(layout):
            raise ConfigError(problems)
        storage.write_text(layout.config, dump_config(config))
    before_s = read_seconds(layout)
    return Opened(config, layout, attempts.claim(layout, nonce=nonce, after=seen), nonce, before_s)


@contextmanager
def at_work(opened: Opened, *, num_cpus: int, stopping: str) -> Iterator[StopRequest]:
    """Connect to Ray (on this machine with so many logical CPUs) and work; `stopping` is told when a signal comes.

    Of what Ray warns, some is printed: that goes to stderr, since stdout is for the results.
    """
    with (
        redirect_stdout(sys.stderr),
        ray_cluster.connected(num_cpus=num_cpus),
        attempts.Heartbeat(opened.layout, opened.attempt, nonce=opened.nonce),
        StopRequest(stopping) as stop,
    ):
        yield stop

"""A run in Weights & Biases: one run there for one run here, however many commands and attempts it takes.

Its id is drawn once and kept in the bucket. Online, the server tells which step it has. Offline, each command makes a
folder of its own for `wandb sync`, which goes into the bucket when the command ends; the steps of one that was killed
before that are in the next one's.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scaletrain import storage
from scaletrain.config_track import WandbSection
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.track.feed import Outcome, Row, numbers_of, step_of
from scaletrain.track.identity import keep_note, read_note

_TIMEOUT_S = 60

log = get_logger(__name__)


class WandbRun:
    """A sink that is a run in Weights & Biases; `config` is shown with it."""

    name = "wandb"

    def __init__(self, section: WandbSection, run: RunLayout, *, config: Mapping[str, object]) -> None:
        self._section = section
        self._layout = run
        self._config = config
        self._run: Any = None
        self._folder: TemporaryDirectory[str] | None = None
        self._note: dict[str, Any] = {}

    def open(self) -> int:
        """Start the run there, or go on with it."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own errors, with their stack, to its makers
        import wandb

        self._note = read_note(self._layout, self.name) or {"id": f"{self._layout.name}-{secrets.token_hex(4)}"}
        keep_note(self._layout, self.name, self._note)
        self._discard()
        self._folder = TemporaryDirectory(prefix="scaletrain-wandb-")
        section = self._section
        self._run = wandb.init(
            id=self._note["id"],
            name=self._layout.name,
            project=section.project,
            entity=section.entity,
            tags=section.tags,
            mode=section.mode,
            resume="allow" if section.mode == "online" else None,
            config=dict(self._config),
            dir=self._folder.name,
            settings=_settings(),
        )
        if section.mode == "online":
            log.info("wandb: %s", self._run.url)
            return int(self._run.starting_step) - 1 if self._run.resumed else 0
        return int(self._note.get("last_step", 0))

    def send(self, rows: Sequence[Row]) -> None:
        """Log each row at its own step and time; W&B queues them and sends them from a process of its own."""
        for row in rows:
            moment = datetime.fromisoformat(str(row["time"])).timestamp()
            self._run.log({**numbers_of(row), "_timestamp": moment}, step=step_of(row))
        self._note["last_step"] = step_of(rows[-1])

    def close(self, outcome: Outcome) -> None:
        """Finish the run there, and keep what an offline one has written."""
        self._run.finish(exit_code=1 if outcome == "failed" else 0)
        if self._section.mode == "offline":
            self._upload()
        if self._folder is not None:
            self._folder.cleanup()

    def _discard(self) -> None:
        """Drop what was open before a failure; its steps come from the bucket again where they are not there."""
        if self._run is not None:
            self._run.finish(exit_code=1)
            self._run = None
        if self._folder is not None:
            self._folder.cleanup()

    def _upload(self) -> None:
        """Keep what `wandb sync` reads; its logs of this machine are not."""
        assert self._folder is not None
        for path in Path(self._folder.name, "wandb").glob("offline-run-*/run-*.wandb"):
            storage.upload_file(path, storage.join(self._layout.track, self.name, path.parent.name, path.name))
        keep_note(self._layout, self.name, self._note)


def _settings() -> Any:
    """Only our rows go there: nothing of this process, its command line, its output, its machine or its sources."""
    import wandb

    return wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        finish_timeout=_TIMEOUT_S,
        host="",
        init_timeout=_TIMEOUT_S,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )

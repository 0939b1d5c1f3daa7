"""Where everything lies below the storage root: every file name of a run, a dataset and a model, in one place."""

import re
from dataclasses import dataclass

from scaletrain.storage import join

_PART = re.compile(r"attempt-(\d{4,})\.part-\d{4,}\.jsonl$")
_STEP_FOLDER = re.compile(r"^step-(\d{8,})$")


def dataset_url(root: str, dataset_id: str) -> str:
    """URL of a prepared dataset: shards, what tells of them, and index.json, which is written last."""
    return join(root, "data", dataset_id)


def documents_url(root: str) -> str:
    """URL of the tokenised documents that preparations keep for the next one; any of them may be removed at any time.

    Not below data/, where every folder is a dataset.
    """
    return join(root, "documents")


def reference_url(root: str, name: str) -> str:
    """URL of what preference training compares with: how likely a model finds the answers of a dataset."""
    return join(root, "references", name)


def model_url(root: str, name: str) -> str:
    """URL of a model that was copied into the bucket once; its index.json is written last."""
    return join(root, "models", name)


def part_name(attempt: int, part: int) -> str:
    """File name of one uploaded part of an attempt's line-by-line records."""
    return f"attempt-{attempt:04d}.part-{part:04d}.jsonl"


def attempt_of_part(name_or_url: str) -> int | None:
    """The attempt that an uploaded part is of, or None for any other file."""
    match = _PART.search(name_or_url)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class RunLayout:
    """The URLs of one run; `root` is the storage root, `name` the run's name."""

    root: str
    name: str

    @property
    def url(self) -> str:
        return join(self.root, "runs", self.name)

    @property
    def config(self) -> str:
        return join(self.url, "config.yaml")

    @property
    def metrics(self) -> str:
        return join(self.url, "metrics")

    @property
    def ledger(self) -> str:
        return join(self.url, "ledger")

    @property
    def tensorboard(self) -> str:
        return join(self.url, "tensorboard")

    @property
    def track(self) -> str:
        """What trackers keep of the run: its id there, and Weights & Biases' offline files."""
        return join(self.url, "track")

    @property
    def evaluation(self) -> str:
        return join(self.url, "evaluation")

    @property
    def export(self) -> str:
        return join(self.url, "export")

    @property
    def checkpoints(self) -> str:
        return join(self.url, "checkpoints")

    @property
    def attempts(self) -> str:
        return join(self.url, "attempts")

    @property
    def plan(self) -> str:
        """The forecast that was kept when the run began."""
        return join(self.url, "plan.json")

    @property
    def plan_score(self) -> str:
        """What became of the forecast."""
        return join(self.url, "plan-score.json")

    @property
    def newest_hint(self) -> str:
        """The step that was committed last, for readers whose listing is stale; only a manifest makes it true."""
        return join(self.checkpoints, "newest")

    def checkpoint(self, step: int) -> str:
        return join(self.checkpoints, f"step-{step:08d}")

    def attempt(self, number: int) -> str:
        """The file whose conditional creation makes `number` this attempt's and nobody else's."""
        return self.attempt_file(number, "json")

    def attempt_from(self, number: int, step: int) -> str:
        """The file whose name states from which step an attempt went on."""
        return self.attempt_file(number, f"from-{step:08d}")

    def attempt_file(self, number: int, kind: str) -> str:
        """A file about an attempt: json, ended, heartbeat, from-00000100."""
        return join(self.attempts, f"attempt-{number:04d}.{kind}")

    def stop_request(self, attempt: int) -> str:
        """The file whose existence asks an attempt to finish its step, save and end."""
        return join(self.attempts, f"stop-{attempt:04d}")


def step_of(folder_name: str) -> int | None:
    """The step that a checkpoint folder's name states, or None for any other folder."""
    match = _STEP_FOLDER.match(folder_name)
    return int(match[1]) if match else None

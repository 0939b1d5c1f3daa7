"""Every error that a user can cause or meet, and the exit code each one ends the command with.

    ScaletrainError             exit 1  the run failed
    ├── ConfigError             exit 2  the configuration or the command line is wrong (lists every problem)
    ├── DataError               exit 2  a corpus or a prepared dataset cannot be used
    ├── ModelError              exit 2  a model cannot be loaded, is no causal language model, or cannot take a prompt
    │   └── EngineFailedError   exit 1  a model that serves has failed, or was closed
    ├── OverloadedError         exit 1  a server's queue is full
    ├── DeviceError             exit 2  a device was asked for that is not there
    ├── ClusterError            exit 1  machines could not be had or were lost for good
    ├── BudgetError             exit 1  the money or the hours that a run may use are spent; its state was saved first
    ├── TrainingError           exit 1  the run itself cannot go on (non-finite loss, lost workers)
    ├── StorageError            exit 1  reading or writing a URL failed
    │   ├── NotFoundError       exit 2  no such object, bucket or folder
    │   └── AccessError         exit 2  no credentials, or not allowed
    └── CheckpointError         exit 2  a checkpoint cannot be used, or belongs to another model
        ├── DamagedError        exit 2  bytes of a checkpoint are not those that were committed
        └── NewerFormatError    exit 2  a newer version of scaletrain wrote a checkpoint
    Interrupted                 exit 130  asked to stop; the state was saved first

Third-party errors are translated once, where they are caught (`raise ... from exc`). A message says what is wrong,
what was found, and what to do; it names the URL, step or row, and never a credential.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class ScaletrainError(Exception):
    """Base of every error that is reported as a message instead of a traceback."""

    exit_code = 1


class ConfigError(ScaletrainError):
    """The configuration or the command line is wrong; `problems` has one line for each mistake."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class Problems(list[str]):
    """What is found wrong, one line each, until one ConfigError tells all of it."""

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add the problems of a ConfigError that ends the block, and go on after it."""
        try:
            yield
        except ConfigError as error:
            self += error.problems

    def raise_any(self) -> None:
        """Raise ConfigError, if anything was found."""
        if self:
            raise ConfigError(self)


class DataError(ScaletrainError):
    """A corpus or a prepared dataset cannot be used."""

    exit_code = 2


class ModelError(ScaletrainError):
    """A model cannot be loaded, is not a causal language model, or cannot take a prompt."""

    exit_code = 2


class EngineFailedError(ModelError):
    """A model that serves has failed or was closed; the request was not at fault and can be sent again."""

    exit_code = 1


class OverloadedError(ScaletrainError):
    """A server's queue is full: the request was not begun and can be sent again later."""


class DeviceError(ScaletrainError):
    """A device was asked for that this machine does not have."""

    exit_code = 2


class ClusterError(ScaletrainError):
    """Machines could not be had, or were lost for good."""


class BudgetError(ScaletrainError):
    """The money or the hours that a run may use are spent, or cannot be counted; its state was saved first."""


class TrainingError(ScaletrainError):
    """The run itself cannot go on."""


class StorageError(ScaletrainError):
    """Reading or writing a URL failed."""


class NotFoundError(StorageError):
    """There is no such object, bucket or folder."""

    exit_code = 2


class AccessError(StorageError):
    """There are no credentials for a URL, or they do not allow this."""

    exit_code = 2


class CheckpointError(ScaletrainError):
    """A checkpoint cannot be used, or belongs to another model."""

    exit_code = 2


class DamagedError(CheckpointError):
    """Bytes of a checkpoint are not those that were committed."""


class NewerFormatError(CheckpointError):
    """A newer version of scaletrain wrote a checkpoint: it is sound, and must be neither passed over nor replaced."""


class Interrupted(ScaletrainError):
    """The run was asked to stop and saved its state first."""

    exit_code = 130

"""Reading any range of any tensor of a committed checkpoint, whoever wrote it."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from scaletrain import storage
from scaletrain.checkpoint.manifest import Manifest, load_manifest
from scaletrain.checkpoint.shard_file import VerifiedFile, split_key
from scaletrain.errors import CheckpointError, DamagedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def open_checkpoint(checkpoint_url: str) -> "Checkpoint":
    """Open a committed checkpoint for reading; reads the manifest and every file's header, but no tensor."""
    manifest = load_manifest(checkpoint_url)
    return Checkpoint(checkpoint_url, manifest)


class Checkpoint:
    """Reads any range of any tensor of a committed checkpoint; every byte is verified before use. Thread-safe."""

    def __init__(self, url: str, manifest: Manifest) -> None:
        self.url = url
        self.manifest = manifest
        self._pieces: dict[tuple[str, str], list[_Piece]] = {}
        for record in manifest.files:
            file = VerifiedFile(storage.join(url, record.name), record)
            for key, start, stop in file.tensors():
                kind, name, offset = split_key(key, file.url)
                piece = _Piece(offset=offset, length=(stop - start) // 4, file=file, start=start)
                self._pieces.setdefault((kind, name), []).append(piece)
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece.offset)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is stored of each parameter, as fp32, exp_avg, exp_avg_sq."""
        return tuple(sorted({kind for kind, _ in self._pieces}))

    def names(self, kind: str = "fp32") -> tuple[str, ...]:
        """The parameters of which `kind` is stored, in the model's order."""
        return tuple(name for name in self.manifest.parameters if (kind, name) in self._pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a parameter."""
        return self.manifest.parameters[name]

    def read(self, kind: str, name: str, offset: int = 0, length: int | None = None) -> "npt.NDArray[np.float32]":
        """Read elements offset..offset+length of a flattened tensor (all of it by default), shape [length].

        Raises CheckpointError where the range is not wholly stored, or a checksum does not match.
        """
        import numpy as np

        if name not in self.manifest.parameters:
            raise CheckpointError(f"{self.url} holds no parameter {name}: it belongs to another model")
        total = prod(self.manifest.parameters[name])
        length = total - offset if length is None else length
        values = np.empty(length, dtype=np.float32)
        filled = 0
        for piece in self._pieces.get((kind, name), []):
            low, high = max(piece.offset, offset), min(piece.offset + piece.length, offset + length)
            if low < high:
                data = piece.file.read(piece.start + 4 * (low - piece.offset), 4 * (high - low))
                values[low - offset : high - offset] = np.frombuffer(data, dtype=np.float32)
                filled += high - low
        if filled != length:
            raise DamagedError(f"{self.url} holds {filled} of {length} elements of {kind} of {name}")
        return values


@dataclass(frozen=True)
class _Piece:
    offset: int
    length: int
    file: VerifiedFile
    start: int

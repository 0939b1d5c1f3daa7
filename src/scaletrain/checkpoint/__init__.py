"""Checkpoints: what a committed one is, which is the newest, and how its slices are written and read.

A checkpoint is a folder, `checkpoints/step-00000100/`. Every rank writes one safetensors file of the fp32 slices it
holds; `manifest.json` is written last, by one rank, and makes the folder a checkpoint: it lists every file with its
size and the checksum of each 8 MiB chunk, and carries a hash of itself. Readers trust nothing else. Since slices are
addressed by parameter and offset, any number of workers and any ZeRO stage reads just the ranges it needs; no file is
ever unpickled.
"""

from scaletrain.checkpoint.commits import check_sizes, commit, latest, newest_whole, prune, verify
from scaletrain.checkpoint.manifest import MANIFEST, FileRecord, Manifest, load_manifest
from scaletrain.checkpoint.persister import Committed, Failed, Save, Setup, Stored
from scaletrain.checkpoint.reader import Checkpoint, open_checkpoint
from scaletrain.checkpoint.shard_image import Extent, ShardLayout, lay_out, store_shard
from scaletrain.checkpoint.shared_image import SharedImage

__all__ = [
    "MANIFEST",
    "Checkpoint",
    "Committed",
    "Extent",
    "Failed",
    "FileRecord",
    "Manifest",
    "Save",
    "Setup",
    "ShardLayout",
    "SharedImage",
    "Stored",
    "check_sizes",
    "commit",
    "latest",
    "lay_out",
    "load_manifest",
    "newest_whole",
    "open_checkpoint",
    "prune",
    "store_shard",
    "verify",
]

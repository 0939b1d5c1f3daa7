"""What a cluster file takes from the user's home, in the home of the emulated laptop, and nothing else of it."""

from collections.abc import Iterator
from pathlib import Path

from scaletrain.cluster.cluster_file import ClusterFile


def link_files_of_home(laptop_home: Path, file: ClusterFile) -> Iterator[str]:
    """Link the sources of mounts and the SSH key; nothing of that is an assumption, so there is nothing to tell."""
    sources = [str(source) for source in (file.raw.get("file_mounts") or {}).values()]
    for source in [*sources, str((file.raw.get("auth") or {}).get("ssh_private_key", ""))]:
        if source.startswith("~/"):
            real, link = Path(source).expanduser(), laptop_home / source.removeprefix("~/")
            if real.exists() and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real)
    yield from ()

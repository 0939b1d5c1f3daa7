"""Upload or download one file in a process of its own, and print by how many bytes that process grew.

python tests/bucket_upload.py upload FILE URL
python tests/bucket_upload.py download FILE URL
"""

import sys
from pathlib import Path

from scaletrain import storage

STATUS = Path("/proc/self/status")


def main() -> None:
    """Do one small transfer first, so that libraries and connections are not counted."""
    direction, file, url = sys.argv[1:]
    storage.write_bytes(f"{url}.warm-up", bytes(2**20))
    storage.read_bytes(f"{url}.warm-up")
    before_bytes = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what there is now
    if direction == "upload":
        storage.upload_file(Path(file), url)
    else:
        storage.download_file(url, Path(file))
    print(memory_bytes("VmHWM") - before_bytes)


def memory_bytes(name: str) -> int:
    """What the kernel says of this process: VmRSS is the memory it holds, VmHWM the most that it held."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()

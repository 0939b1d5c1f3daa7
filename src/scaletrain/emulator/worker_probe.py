"""Runs on a cluster's head: asks for a worker by its resources, and from there tries the bucket; prints one JSON line.

python -m scaletrain.emulator.worker_probe '{"GPU": 1}' s3://my-bucket/scaletrain
"""

import json
import logging
import sys
from typing import Any

MARK = "REHEARSAL "


def main() -> None:
    """Wait, for as long as it takes, until Ray has a machine with the resources."""
    import ray

    resources: dict[str, float] = json.loads(sys.argv[1])
    ray.init(address="auto", logging_level=logging.ERROR)
    task = ray.remote(_look_around).options(
        num_cpus=resources.pop("CPU", 0), num_gpus=resources.pop("GPU", 0), resources=resources, max_retries=0
    )
    print(MARK + json.dumps(ray.get(task.remote(sys.argv[2] if len(sys.argv) > 2 else ""))), flush=True)


def _look_around(bucket_root: str) -> dict[str, Any]:
    """What the worker is and whether it may write the bucket; an empty `bucket_error` where it may."""
    import os
    import socket

    from scaletrain import storage
    from scaletrain.errors import ScaletrainError

    error = ""
    if bucket_root:
        folder = storage.join(bucket_root, f"rehearsal-{os.urandom(6).hex()}")
        try:
            storage.write_bytes(storage.join(folder, "probe"), b"probe")
            storage.read_bytes(storage.join(folder, "probe"))
            storage.remove(folder)
        except ScaletrainError as refused:
            error = str(refused)
    return {"host": socket.gethostname(), "bucket_error": error}


if __name__ == "__main__":
    main()

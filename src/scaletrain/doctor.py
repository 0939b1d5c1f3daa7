"""Is this machine ready? Each check is a function that looks at one thing and says what it found and what to do.

Nothing heavy is imported: versions come from package metadata, torch's CUDA from its version file. The bucket is tried
with one small object, which is removed again. Not tried here: whether GPUs really compute, and the cloud account.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scaletrain import storage
from scaletrain.container_limits import CGROUPS, cores_available, memory_limit_bytes
from scaletrain.errors import ScaletrainError
from scaletrain.storage.errors import without_password

if TYPE_CHECKING:
    from rich.table import Table

_GIB = 2**30
_MAIN_PACKAGES = ("torch", "ray", "deepspeed", "transformers")
_EXTRA_FOR = {"s3": "aws", "s3a": "aws", "gs": "gcp", "gcs": "gcp"}
# The oldest driver for each major version of CUDA on Linux:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
_SLOW_BUCKET_S = 0.5


@dataclass(frozen=True)
class Finding:
    """What one check found; `remedy` says what to do and is empty where all is well."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def diagnose(root: str | None, options: Mapping[str, str | int | float | bool]) -> list[Finding]:
    """Look at this machine, and at the storage root if one is given; takes a few seconds and raises nothing."""
    findings = [python_version(), compiler(), ninja(), *packages(root), memory(), cpu_cores()]
    findings += [
        disk("disk, working folder", Path.cwd()),
        disk("disk, cache", Path("~/.cache").expanduser()),
        shared_memory(),
        gpu(installed_cuda()),
    ]
    if root is not None:
        findings.append(bucket(root, options))
    return findings


def render(findings: list[Finding]) -> "Table":
    """Return the findings as a table for the terminal."""
    from rich.table import Table

    table = Table("check", "", "found", "what to do")
    for each in findings:
        table.add_row(*cells(each))
    return table


def cells(finding: Finding) -> tuple[str, str, str, str]:
    """Return a row of that table, as rich markup."""
    from rich.markup import escape

    colour = {"ok": "green", "warn": "yellow", "fail": "bold red"}[finding.status]
    mark = f"[{colour}]{finding.status}[/]"
    return finding.name, mark, escape(finding.found), escape(finding.remedy)


# --- Software -----------------------------------------------------------------------------------------------------


def python_version() -> Finding:
    """Compare this Python with the versions that the installed package allows."""
    from packaging.specifiers import SpecifierSet

    version = ".".join(str(part) for part in sys.version_info[:3])
    needed = importlib.metadata.metadata("scaletrain")["Requires-Python"]
    if SpecifierSet(needed).contains(version):
        return Finding("Python", "ok", version)
    return Finding("Python", "fail", version, f"install Python {needed}")


def compiler(command: str | None = None) -> Finding:
    """Compile a few lines against Python's headers, as DeepSpeed does with its extension at the first start."""
    name = "C++ compiler"
    command = command or os.environ.get("CXX") or "c++"
    path = shutil.which(command)
    if path is None:
        return Finding(name, "fail", f"no {command}", "install one: apt-get install g++, or yum install gcc-c++")
    program = "#include <Python.h>\n#include <vector>\nint main() { return 0; }\n"
    arguments = [path, "-std=c++17", "-fsyntax-only", "-I", sysconfig.get_path("include"), "-x", "c++", "-"]
    done = subprocess.run(arguments, input=program, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding(name, "ok", path)
    reason = next((line for line in done.stderr.splitlines() if "error" in line), "does not compile")
    if "Python.h" in reason:
        return Finding(name, "fail", f"{path}, but no Python.h", "install it: apt-get install python3-dev")
    return Finding(name, "fail", f"{path}: {reason}", "repair or reinstall the compiler")


def ninja() -> Finding:
    """Look for ninja beside this Python, where training looks for it first, and on PATH."""
    path = shutil.which("ninja", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return Finding("ninja", "ok", path) if path else Finding("ninja", "fail", "none", "pip install ninja")


def packages(root: str | None = None) -> Iterator[Finding]:
    """Compare installed packages with the ranges that scaletrain was tested with; the storage root may need more."""
    from packaging.requirements import Requirement

    extra = _EXTRA_FOR.get(root.partition("://")[0]) if root else None
    wrong = []
    count = 0
    for line in importlib.metadata.requires("scaletrain") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra or ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
            fits = requirement.specifier.contains(version, prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            version, fits = "not installed", False
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        if requirement.name in _MAIN_PACKAGES:
            yield Finding(requirement.name, "ok" if fits else "fail", version, "" if fits else remedy)
        elif fits:
            count += 1
        else:
            wrong.append(Finding(requirement.name, "fail", version, remedy))
    yield from wrong
    yield Finding("other packages", "ok", f"{count} in their ranges")


# --- Machine ------------------------------------------------------------------------------------------------------


def memory(cgroups: Path = CGROUPS) -> Finding:
    """Tell the memory that this process may use, in a container too."""
    import psutil

    limit = memory_limit_bytes(cgroups)
    free = min(limit, psutil.virtual_memory().available)
    found = f"{limit / _GIB:.1f} GiB, {free / _GIB:.1f} free"
    remedy = "close other programs; else choose a smaller model, model.lora, or fewer workers"
    return _amount("memory", free / _GIB, found, remedy, warn_below=6, fail_below=2)


def cpu_cores(cgroups: Path = CGROUPS) -> Finding:
    """Count the cores that this process may use: by its affinity, and by the quota of its container."""
    cores = cores_available(cgroups)
    found = f"{cores:g} of {os.cpu_count()}"
    return _amount("CPU cores", cores, found, "give this machine or container more cores", warn_below=2, fail_below=0)


def disk(name: str, path: Path) -> Finding:
    """Tell the free space where a folder lies, or would lie."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    usage = shutil.disk_usage(existing)
    found = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free at {existing}"
    return _amount(name, usage.free / _GIB, found, "free some space", warn_below=10, fail_below=2)


def shared_memory(path: Path = Path("/dev/shm")) -> Finding:
    """Tell the size of the shared memory in which Ray keeps its objects."""
    if not path.is_dir():
        return Finding("shared memory", "warn", f"no {path}", "mount it: Ray falls back to the much slower disk")
    free = shutil.disk_usage(path).free / _GIB
    remedy = "Ray falls back to the much slower disk: start the container with --shm-size=4g or more"
    return _amount("shared memory", free, f"{free:.1f} GiB free at {path}", remedy, warn_below=1, fail_below=0)


def gpu(cuda: str | None) -> Finding:
    """Look for GPUs and hold their driver against the CUDA version that torch was built for (None: for the CPU)."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return Finding("GPU", "ok", "none: models train on the CPU")
    arguments = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return Finding("GPU", "fail", "nvidia-smi does not answer", "reboot; if it stays so, reinstall the driver")
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    if done.returncode != 0 or not rows:
        reason = (done.stdout + done.stderr).strip().partition("\n")[0] or f"exit code {done.returncode}"
        return Finding("GPU", "fail", f"nvidia-smi: {reason}", "load or reinstall the NVIDIA driver, then reboot")
    names = [f"{name} ({size})" for name, size, _ in rows]
    driver = rows[0][2]
    found = f"{', '.join(names)}, driver {driver}, torch for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if cuda is None:
        remedy = "the GPU would lie idle: install a torch that is built for CUDA (pip install torch, without +cpu)"
        return Finding("GPU", "warn", found, remedy)
    needed = _OLDEST_DRIVER.get(int(cuda.partition(".")[0]), max(_OLDEST_DRIVER.values()))
    if int(driver.partition(".")[0]) < needed:
        remedy = f"install driver {needed} or newer, or a torch that is built for an older CUDA"
        return Finding("GPU", "fail", found, remedy)
    return Finding("GPU", "ok", found)


def installed_cuda() -> str | None:
    """Return the CUDA version that the installed torch was built for, as "13.0", without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    match = re.search(r"^cuda\b.*= '([\d.]+)'", Path(spec.origin).with_name("version.py").read_text(), re.MULTILINE)
    return match[1] if match else None


# --- Storage ------------------------------------------------------------------------------------------------------


def bucket(root: str, options: Mapping[str, str | int | float | bool]) -> Finding:
    """Write, create, read, list and remove one small object below a storage root, and measure how long it takes."""
    name = f"storage {without_password(root)}"
    url = storage.join(root, f"doctor-{os.urandom(6).hex()}")
    folder = storage.local_path(root) if storage.is_local(root) else None
    missing = [each for each in (folder, *folder.parents) if not each.exists()] if folder else []
    try:
        storage.configure(root, options)
        try:
            return _try_storage(name, url)
        finally:
            storage.remove(url)
            for each in missing:
                with suppress(OSError):  # somebody else uses it by now
                    each.rmdir()
    except ScaletrainError as error:
        found, _, remedy = str(error).partition("; ")
        return Finding(name, "fail", found, remedy)


def _try_storage(name: str, url: str) -> Finding:
    storage.write_bytes(storage.join(url, "first"), b"connects, and makes folders")
    data = os.urandom(1024)
    began = time.perf_counter()
    created = storage.create(storage.join(url, "probe"), data)
    written = time.perf_counter()
    read = storage.read_bytes(storage.join(url, "probe"))
    ended = time.perf_counter()
    if not created or storage.create(storage.join(url, "probe"), b"again"):
        remedy = "two runs could take the same attempt: use a store that honours If-None-Match"
        return Finding(name, "fail", "creates an object that exists already", remedy)
    if read != data or len(storage.list_objects(url)) != 2:
        return Finding(name, "fail", "does not give back what was written", "use another store")
    found = f"writes in {1000 * (written - began):.0f} ms, reads in {1000 * (ended - written):.0f} ms"
    if ended - began > _SLOW_BUCKET_S:
        return Finding(name, "warn", found, "slow: is the bucket in this machine's region?")
    return Finding(name, "ok", found)


# --- Helpers ------------------------------------------------------------------------------------------------------


def _amount(name: str, amount: float, found: str, remedy: str, *, warn_below: float, fail_below: float) -> Finding:
    if amount >= warn_below:
        return Finding(name, "ok", found)
    return Finding(name, "fail" if amount < fail_below else "warn", found, remedy)

"""doctor: each check tells a sound machine from an unsound one, and says what to do."""

import importlib.util
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scaletrain import doctor, storage

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a program of the test's own in front of PATH: its name and its shell script."""

    def make(name: str, script: str) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
        return path

    return make


def test_this_machine_is_ready(tmp_path: Path) -> None:
    """Where the tests run, nothing fails; every check has its line, and no remedy where all is well."""
    findings = doctor.diagnose(str(tmp_path / "new" / "bucket"), {})
    assert [each for each in findings if each.status == "fail"] == []
    assert all(bool(each.remedy) == (each.status != "ok") for each in findings)
    names = {each.name for each in findings}
    assert {"Python", "C++ compiler", "ninja", "torch", "ray", "deepspeed", "transformers"} < names
    assert {"memory", "CPU cores", "disk, working folder", "disk, cache", "shared memory", "GPU"} < names
    assert not (tmp_path / "new").exists()


def test_the_table_shows_every_finding() -> None:
    """The rendered table has what was found and what to do, brackets and all."""
    from rich.console import Console

    output = io.StringIO()
    Console(width=200, file=output).print(
        doctor.render([doctor.Finding("ninja", "fail", "none", "pip install 'x[y]'")])
    )
    assert all(each in output.getvalue() for each in ("ninja", "fail", "none", "pip install 'x[y]'"))


def test_looking_imports_nothing_heavy() -> None:
    """The doctor must not depend on what may be broken: torch, ray and DeepSpeed are not imported."""
    code = (
        "import sys; from scaletrain.doctor import diagnose; diagnose(None, {});"
        "print(sorted({'torch', 'ray', 'deepspeed', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Software -----------------------------------------------------------------------------------------------------


def test_a_missing_compiler_is_told() -> None:
    """Without a C++ compiler the remedy names the package."""
    finding = doctor.compiler("no-such-compiler")
    assert finding.status == "fail" and "g++" in finding.remedy


def test_missing_python_headers_are_told(program: Program) -> None:
    """A compiler without Python's headers cannot build DeepSpeed's extension; the remedy names the headers."""
    broken = program("headless", "echo '<stdin>:1:10: fatal error: Python.h: No such file or directory' >&2; exit 1")
    finding = doctor.compiler(str(broken))
    assert finding.status == "fail" and "python3-dev" in finding.remedy


def test_a_compiler_that_does_not_work_is_told(program: Program) -> None:
    """The compiler's own first error is shown."""
    broken = program("broken", "echo 'error: cannot execute cc1plus' >&2; exit 1")
    assert "cannot execute cc1plus" in doctor.compiler(str(broken)).found


def test_ninja_beside_python_is_found_without_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Training looks beside Python first, so an environment need not be activated."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.ninja().status == "ok"


def test_packages_outside_their_range_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of another version, and one that is missing, fail with the pip command that cures it."""
    needs = ["torch>=99", "rich>=1", "no-such-package>=2", "boto3>=99; extra == 'aws'", "pytest>=99; extra == 'dev'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needs)
    found = {each.name: each for each in doctor.packages("s3://bucket/root")}
    assert {name for name, each in found.items() if each.status == "fail"} == {"torch", "no-such-package", "boto3"}
    assert found["torch"].remedy == "pip install 'torch>=99'"
    assert found["no-such-package"].found == "not installed"
    assert "boto3" not in {each.name for each in doctor.packages("bucket")}


# --- Machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000\n"}, "0.5 of"),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "0.5 of"),
        ({"cpu.max": "max 100000\n"}, f"{len(os.sched_getaffinity(0))} of"),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, f"{len(os.sched_getaffinity(0))} of"),
    ],
)
def test_a_container_has_the_cores_of_its_quota(tmp_path: Path, files: dict[str, str], cores: str) -> None:
    """The quota of a control group counts, in both versions, not the cores of the host."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert doctor.cpu_cores(tmp_path).found.startswith(cores)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_the_memory_of_its_limit(tmp_path: Path, name: str) -> None:
    """A limit of 1 GiB is too little, whatever the host has; no limit is no limit."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"{2**30}\n")
    finding = doctor.memory(tmp_path)
    assert finding.found.startswith("1.0 GiB") and finding.status == "fail" and finding.remedy
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / name).unlink()
    assert not doctor.memory(tmp_path).found.startswith("1.0 GiB,")


def test_a_disk_is_looked_at_where_a_folder_would_lie(tmp_path: Path) -> None:
    """A folder that is not there yet is judged by the disk that it would be on."""
    assert str(tmp_path) in doctor.disk("disk", tmp_path / "not" / "yet").found


def test_missing_shared_memory_is_told(tmp_path: Path) -> None:
    """Without /dev/shm Ray works, but slowly: a warning."""
    assert doctor.shared_memory(tmp_path / "shm").status == "warn"


@pytest.mark.parametrize(
    ("driver", "cuda", "status", "remedy"),
    [
        ("580.65.06", "13.0", "ok", ""),
        ("570.124.06", "13.0", "fail", "install driver 580 or newer"),
        ("525.60.13", "12.8", "ok", ""),
        ("470.82.01", "12.8", "fail", "install driver 525 or newer"),
        ("580.65.06", None, "warn", "the GPU would lie idle"),
    ],
)
def test_the_driver_must_suit_the_cuda_of_torch(
    program: Program, driver: str, cuda: str | None, status: str, remedy: str
) -> None:
    """A driver too old for the installed torch fails, and a torch for the CPU beside a GPU is a warning."""
    program("nvidia-smi", f"echo 'NVIDIA H100 80GB HBM3, 81559 MiB, {driver}'")
    finding = doctor.gpu(cuda)
    assert finding.status == status and finding.remedy.startswith(remedy)
    assert "NVIDIA H100 80GB HBM3 (81559 MiB)" in finding.found and driver in finding.found


def test_a_driver_that_does_not_answer_is_told(program: Program) -> None:
    """nvidia-smi's own words are shown where it fails."""
    program("nvidia-smi", 'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the driver."; exit 9')
    finding = doctor.gpu("13.0")
    assert finding.status == "fail" and "couldn't communicate" in finding.found and "driver" in finding.remedy


def test_the_cuda_of_torch_is_read_without_importing_it() -> None:
    """What is read from torch's version file is what Python finds in it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    assert doctor.installed_cuda() == runpy.run_path(str(Path(spec.origin).with_name("version.py")))["cuda"]


# --- Storage ------------------------------------------------------------------------------------------------------


def test_a_bucket_is_tried_and_left_as_it_was(bucket_root: str) -> None:
    """The probe is written, created once, read, listed and removed; the times are told."""
    storage.write_bytes(storage.join(bucket_root, "mine"), b"x")
    finding = doctor.bucket(bucket_root, {})
    assert finding.status in ("ok", "warn") and "writes in" in finding.found and "reads in" in finding.found
    assert [each.url for each in storage.list_objects(bucket_root)] == [storage.join(bucket_root, "mine")]


def test_a_missing_bucket_is_told(s3_server: str) -> None:
    """The storage error's cause and remedy become the finding's."""
    finding = doctor.bucket("s3://no-such-bucket-here/root", {})
    assert finding.status == "fail" and "no bucket" in finding.found and finding.remedy.startswith("check the name")


def test_an_unknown_option_is_told() -> None:
    """A misspelt storage option is found before a run fails on it."""
    assert doctor.bucket("s3://b", {"endpont_url": "x"}).remedy == "did you mean endpoint_url?"


def test_a_store_that_ignores_conditions_is_told(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs could take one attempt where a second creation succeeds: such a store fails."""

    def overwrite(url: str, data: bytes) -> bool:
        storage.write_bytes(url, data)
        return True

    monkeypatch.setattr(storage, "create", overwrite)
    finding = doctor.bucket(s3_bucket, {})
    assert finding.status == "fail" and "If-None-Match" in finding.remedy

"""What is planted into real conversations is found by a whole preparation, and hardly anything else is left out."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The script that also makes the table of a larger run; its name is that of a module of the tests."""
    pytest.importorskip("chitchat_dataset")
    sys.path.append(str(BENCHMARKS))
    spec = spec_from_file_location("benchmark_planted", BENCHMARKS / "planted.py")
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.real_model
def test_what_is_planted_is_found_and_nothing_else(benchmark: Any, tmp_path: Path) -> None:
    """Near-duplicates to 95%, personal data of all eight kinds to 95%; copies, leaks and listed words all."""
    found, false = benchmark.measured(benchmark.ground(max_words=150)[:640], tmp_path)
    shares = {rate.kind: rate.share for rate in found}
    assert all(rate.planted >= 8 for rate in found) and len(found) == 3 + len(benchmark.KINDS) + len(benchmark.TOXIC)
    assert shares.pop("nearly equal conversations") >= 0.95
    assert all(share >= 0.95 for kind, share in shares.items() if kind.startswith("personal"))
    assert {kind: share for kind, share in shares.items() if not kind.startswith("personal") and share < 1} == {}
    assert {rate.kind: rate.share for rate in false if rate.share >= 0.005} == {}

"""serve.engine_choice: the engine that a machine can run, and why it is not the other one."""

import asyncio
import logging
from pathlib import Path

import pytest

from engine_answers import answer
from scaletrain.errors import ConfigError, DeviceError, ModelError
from scaletrain.serve.engine import BatchEngine
from scaletrain.serve.engine_choice import choose_engine
from scaletrain.serve.engine_limits import EngineLimits
from tiny import tiny_model_folder


def test_a_folder_is_served_on_the_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From a folder to an answer, and the log says which engine it is, why, and what fits into it."""
    folder = tiny_model_folder(tmp_path)

    async def run() -> None:
        engine = choose_engine(folder, device="cpu", limits=EngineLimits(max_running=3, context_tokens=100))
        try:
            assert engine.context_tokens == 100
            assert isinstance(engine, BatchEngine)
            assert (await answer(engine, [5, 6], max_tokens=3)).tokens <= 3
        finally:
            await engine.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert "no GPU is used: 3 answers at once, 100 tokens of context, 300 tokens" in caplog.text


def test_vllm_without_a_gpu_is_refused(tmp_path: Path) -> None:
    """Before anything is loaded."""
    with pytest.raises(DeviceError, match="no GPU is used"):
        choose_engine(tmp_path, device="cpu", kind="vllm")


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    """A ModelError, not transformers' own."""
    with pytest.raises(ModelError, match=tmp_path.name):
        choose_engine(tmp_path, device="cpu")


def test_limits_that_make_no_sense_are_all_named() -> None:
    """Each with what to use."""
    with pytest.raises(ConfigError) as caught:
        EngineLimits(
            max_running=0, max_waiting=-1, prefill_tokens=0, cache_memory=1.5, cache_tokens=0, context_tokens=1
        )
    assert [problem.partition("=")[0] for problem in caught.value.problems] == [
        "max_running", "max_waiting", "prefill_tokens", "cache_memory", "cache_tokens", "context_tokens",
    ]  # fmt: skip

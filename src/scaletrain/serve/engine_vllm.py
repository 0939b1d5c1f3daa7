"""vLLM as an engine, on GPUs, where it is installed (Kwon et al. 2023, arXiv:2309.06180).

A thin adapter over vllm.v1.engine.async_llm.AsyncLLM as documented for vLLM 0.22 to 0.32
(https://docs.vllm.ai/en/v0.22.1/examples/deployment/async_llm_streaming/). It is exercised only where vLLM installs: no
test of this project runs it on a machine without a GPU.
"""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from scaletrain.errors import EngineFailedError, OverloadedError
from scaletrain.model.sources import errors_of_transformers
from scaletrain.serve.engine_limits import EngineLimits, check_prompt
from scaletrain.serve.engine_sampling import Chosen
from scaletrain.serve.engine_text import TokenBytes
from scaletrain.serve.protocol import EngineStatus, FinishReason, Piece, Sampled


class VllmEngine:
    """vLLM's own scheduler, cache and kernels behind protocol.Engine. Close it after use."""

    def __init__(self, folder: Path, *, limits: EngineLimits) -> None:
        """Load a Hugging Face folder onto the GPU; vLLM takes its own default share of the memory."""
        from transformers import AutoTokenizer
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        with errors_of_transformers(str(folder)):
            tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            settings = AsyncEngineArgs(
                model=str(folder), max_num_seqs=limits.max_running, max_model_len=limits.context_tokens
            )
            self._vllm: Any = AsyncLLM.from_engine_args(settings)
        self.context_tokens: int = self._vllm.model_config.max_model_len
        self._vocab_size: int = self._vllm.model_config.get_vocab_size()
        self._limits = limits
        self._bytes = TokenBytes(tokenizer)
        self._ends = sorted(_end_tokens(folder, tokenizer))
        self._there = 0

    async def stream(self, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        """Yield the answer in pieces; see protocol.Engine."""
        check_prompt(prompt, sampled, context_tokens=self.context_tokens, vocab_size=self._vocab_size)
        if self._there >= self._limits.max_running + self._limits.max_waiting:
            raise OverloadedError(f"{self._there} requests are being answered or wait; try again later")
        self._there += 1
        # vLLM aborts a request when its iterator is closed.
        outputs = self._vllm.generate({"prompt_token_ids": prompt}, self._parameters(sampled), str(uuid.uuid4()))
        try:
            async for output in outputs:
                yield self._piece(output.outputs[0], sampled)
        except Exception as exc:  # what vLLM raises differs from version to version, and always ends the request
            raise EngineFailedError(f"vLLM failed: {type(exc).__name__}: {exc}") from exc
        finally:
            self._there -= 1
            await outputs.aclose()

    def status(self) -> EngineStatus:
        """The requests that vLLM has; what its cache holds is in vLLM's own metrics."""
        running = min(self._there, self._limits.max_running)
        return EngineStatus(running, self._there - running, cached_tokens=0, cache_tokens=0)

    async def close(self) -> None:
        """End vLLM's processes."""
        self._vllm.shutdown()

    def _parameters(self, sampled: Sampled) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=sampled.max_tokens,
            temperature=sampled.temperature,
            top_p=sampled.top_p,
            seed=sampled.seed,
            stop=list(sampled.stop),
            stop_token_ids=self._ends,
            presence_penalty=sampled.presence_penalty,
            frequency_penalty=sampled.frequency_penalty,
            logprobs=sampled.logprobs,
            output_kind=RequestOutputKind.DELTA,
        )

    def _piece(self, output: Any, sampled: Sampled) -> Piece:
        tokens = list(output.token_ids)
        reason: FinishReason | None = None
        if output.finish_reason is not None:
            reason = "length" if output.finish_reason == "length" else "stop"
        entries = zip(tokens, output.logprobs or (), strict=False)
        reports = [self._bytes.report(_chosen(token, entry, sampled)) for token, entry in entries]
        kept = [report for report in reports if report is not None and report.token not in self._ends]
        return Piece(output.text, len(tokens), tuple(kept), reason)


def _chosen(token: int, entry: Any, sampled: Sampled) -> Chosen:
    likeliest = sorted(entry.items(), key=lambda item: item[1].rank)[: sampled.logprobs]
    return Chosen(token, entry[token].logprob, tuple((each, report.logprob) for each, report in likeliest))


def _end_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    from transformers import GenerationConfig

    from scaletrain.model.generate import end_tokens

    settings = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
    return end_tokens(settings, tokenizer)

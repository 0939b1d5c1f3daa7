"""What Prometheus reads from /metrics: requests, times, tokens, and what the engines do now."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from scaletrain.serve.protocol import EngineStatus

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DURATION_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STATUS_HELP = {
    "running": "requests in the batch",
    "waiting": "requests in the engine's queue",
    "cached_tokens": "tokens in the key-value cache",
    "cache_tokens": "tokens that the key-value cache has room for",
}


class ServiceMetrics:
    """The counters of one server, in a registry of their own; `engines` gives each model's name and status."""

    def __init__(self, engines: Callable[[], Iterable[tuple[str, EngineStatus]]]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._registry = CollectorRegistry()
        self._engines = engines
        self.requests = Counter(
            "scaletrain_requests", "HTTP requests", ["route", "method", "status"], registry=self._registry
        )
        self.first_token_s = Histogram(
            "scaletrain_time_to_first_token_seconds",
            "from a request's last byte to its answer's first text",
            ["model"],
            buckets=_FIRST_TOKEN_S,
            registry=self._registry,
        )
        self.generation_s = Histogram(
            "scaletrain_generation_seconds",
            "from a request's last byte to its answer's end",
            ["model"],
            buckets=_DURATION_S,
            registry=self._registry,
        )
        self.prompt_tokens = Counter(
            "scaletrain_prompt_tokens", "tokens of prompts", ["model"], registry=self._registry
        )
        self.completion_tokens = Counter(
            "scaletrain_completion_tokens", "tokens of answers", ["model"], registry=self._registry
        )
        self.ended = Counter(
            "scaletrain_generations", "generations by how they ended", ["model", "end"], registry=self._registry
        )
        self._registry.register(self)

    def text(self) -> tuple[bytes, str]:
        """All of it in the format of Prometheus, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator["GaugeMetricFamily"]:
        """What the engines do now; called by the registry."""
        from prometheus_client.core import GaugeMetricFamily

        statuses = list(self._engines())
        for name, meaning in _STATUS_HELP.items():
            family = GaugeMetricFamily(f"scaletrain_engine_{name}", meaning, labels=["model"])
            for model, status in statuses:
                family.add_metric([model], getattr(status, name))
            yield family

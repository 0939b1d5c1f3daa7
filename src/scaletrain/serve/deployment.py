"""Models on Ray Serve: replicas on the cluster's machines that come and go with the load, behind one HTTP server.

The HTTP server (keys, limits, metrics, web page) is one process; each model's engines are replicas of a Ray Serve
application, and requests go to them as tokens through its handle. A replica that dies ends only the requests that it
was answering, each with an error that says to ask again; Ray Serve starts another in its place.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from scaletrain import ray_cluster, storage
from scaletrain.config import StorageSection
from scaletrain.config_serve import ReplicaRange, ServeSection
from scaletrain.errors import ClusterError, EngineFailedError, OverloadedError, ScaletrainError
from scaletrain.log import get_logger, setup_logging
from scaletrain.model.resolve import newest_version, resolve_model
from scaletrain.serve.local import engines_of, load_engine, load_tokenizer
from scaletrain.serve.models import Models, Origin, ServedModel
from scaletrain.serve.protocol import EngineStatus, Piece, Sampled

_HEALTH_EVERY_S = 2.0
_HEALTH_TIMEOUT_S = 30.0
_SCALE_UP_AFTER_S = 5.0
_SCALE_DOWN_AFTER_S = 120.0

log = get_logger(__name__)


@contextmanager
def ray_serve() -> Iterator[None]:
    """Be connected to Ray, with Ray Serve's controller running and no HTTP proxy of its own.

    On a cluster the controller stays, since applications of others may use it.
    """
    from ray import serve

    with ray_cluster.connected():
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled")
        yield


def ray_models(section: ServeSection, *, store: StorageSection, root: str) -> Models:
    """Models whose engines are replicas on Ray Serve; needs `ray_serve`."""

    async def load(origin: Origin) -> ServedModel:
        folder = await asyncio.to_thread(resolve_model, origin.source, root=root)
        tokenizer = await asyncio.to_thread(load_tokenizer, folder)
        application = f"scaletrain-{origin.name}-{uuid4().hex[:8]}".replace("/", "-")
        replicas = await Replicas.deploy(application, _Load(origin, root, store, section))
        engines = {name: RayEngine(replicas, name) for name in (origin.name, *origin.adapters)}
        return ServedModel(origin, engines, tokenizer, close_engine=replicas.close, heals=True)

    async def newest(source: str) -> str | None:
        return await asyncio.to_thread(newest_version, source, root=root)

    return Models(load, newest)


@dataclass(frozen=True)
class _Load:
    """What a replica needs to know to load its model by itself, on whatever machine it is."""

    origin: Origin
    root: str
    store: StorageSection
    section: ServeSection


class Replica:
    """One engine, in a process of Ray Serve's."""

    def __init__(self, load: _Load) -> None:
        setup_logging()
        storage.configure(load.store.root, load.store.options)
        folder = resolve_model(load.origin.source, root=load.root)
        self._engines = engines_of(load.origin, load_engine(load.section, folder, load.origin.adapters))

    async def stream(self, name: str, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        """Hand on what the engine of a name makes."""
        async with aclosing(self._engines[name].stream(prompt, sampled)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece

    async def context_tokens(self) -> int:
        return next(iter(self._engines.values())).context_tokens


@dataclass(frozen=True)
class Replicas:
    """A Ray Serve application of engines; `stream` asks one of them."""

    application: str
    stream: Any
    context_tokens: int

    @classmethod
    async def deploy(cls, application: str, load: _Load) -> "Replicas":
        """Start the replicas, and wait until they have loaded the model; raises ClusterError where they cannot."""
        handle = await asyncio.to_thread(_deploy, application, load)
        return cls(application, handle.options(stream=True).stream, await handle.context_tokens.remote())

    async def close(self) -> None:
        """End them."""
        from ray import serve

        await asyncio.to_thread(serve.delete, self.application)


class RayEngine:
    """The replicas of one model as one engine (protocol.Engine), for the model as it is or with an adapter."""

    def __init__(self, replicas: Replicas, name: str) -> None:
        self.context_tokens = replicas.context_tokens
        self._replicas = replicas
        self._name = name
        self._running = 0

    async def stream(self, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        """Yield what a replica makes."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import BackPressureError, RayServeException

        self._running += 1
        response = self._replicas.stream.remote(self._name, prompt, sampled)
        try:
            async for piece in response:
                yield piece
        except (asyncio.CancelledError, GeneratorExit):
            response.cancel()
            raise
        except BackPressureError as exc:
            raise OverloadedError("every replica is busy and the queue is full; ask again") from exc
        except (RayError, RayServeException) as exc:
            cause = getattr(exc, "cause", None)
            if isinstance(cause, ScaletrainError):
                raise cause from exc
            raise EngineFailedError(f"the replica that answered was lost ({type(exc).__name__})") from exc
        finally:
            self._running -= 1

    def status(self) -> EngineStatus:
        """What is asked of all replicas together; what each of them does with it, Ray's dashboard tells."""
        return EngineStatus(running=self._running, waiting=0, cached_tokens=0, cache_tokens=0)

    async def close(self) -> None:
        """End the replicas."""
        await self._replicas.close()


def _deploy(application: str, load: _Load) -> Any:
    from ray import serve

    section = load.section
    gpus = section.gpus_per_replica
    if gpus is None:
        gpus = 1 if section.device == "cuda" or (section.device == "auto" and _cluster_gpus()) else 0
    scaling: dict[str, Any] = {"num_replicas": section.replicas or 1}
    if isinstance(section.replicas, ReplicaRange):
        scaling = {
            "autoscaling_config": {
                "min_replicas": section.replicas.min,
                "max_replicas": section.replicas.max,
                "initial_replicas": section.replicas.min,
                "target_ongoing_requests": section.max_running,
                "upscale_delay_s": _SCALE_UP_AFTER_S,
                "downscale_delay_s": _SCALE_DOWN_AFTER_S,
            }
        }
    deployment = serve.deployment(
        name="engine",
        max_ongoing_requests=section.max_running + section.max_waiting,
        max_queued_requests=section.max_waiting or 1,
        ray_actor_options={"num_cpus": section.cpus_per_replica, "num_gpus": gpus},
        health_check_period_s=_HEALTH_EVERY_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=section.drain_s,
        **scaling,
    )(Replica)
    try:
        return serve.run(deployment.bind(load), name=application, route_prefix=None)
    except Exception as exc:
        raise ClusterError(f"the replicas of {load.origin.source} could not be started on Ray Serve: {exc}") from exc


def _cluster_gpus() -> float:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("GPU", 0)

"""Serving from its settings: what is wrong with them is said before anything is loaded; then models, then requests."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from scaletrain import ray_cluster
from scaletrain.config import StorageSection
from scaletrain.config_serve import ServeSection
from scaletrain.errors import Problems
from scaletrain.listening import bind, is_loopback
from scaletrain.serve.keys import KeyRing

if TYPE_CHECKING:
    from scaletrain.serve.http_server import ApiServer
    from scaletrain.serve.models import Origin


def serve(
    section: ServeSection,
    origins: "Sequence[Origin]",
    *,
    store: StorageSection,
    root: str,
    ready: Callable[["ApiServer"], None],
) -> None:
    """Serve models until SIGTERM; raises ConfigError that lists every problem."""
    check(section)
    from scaletrain.serve.app import Service
    from scaletrain.serve.feedback import FeedbackFile
    from scaletrain.serve.http_server import ApiServer

    keys = KeyRing(Path(section.keys)) if section.keys else None
    feedback = FeedbackFile(Path(section.feedback)) if section.feedback else None
    bound = bind(section.host, section.port)
    on_ray: AbstractContextManager[None] = nullcontext()
    if section.replicas is not None or ray_cluster.address():
        from scaletrain.serve.deployment import ray_models, ray_serve

        on_ray, models = ray_serve(), ray_models(section, store=store, root=root)
    else:
        from scaletrain.serve.local import local_models

        models = local_models(section, root=root)

    async def run() -> None:
        await ApiServer(Service(section, models, keys, feedback), bound).run(origins, ready=ready)

    with on_ray:
        _run(run)


def check(section: ServeSection) -> None:
    """Raise ConfigError for settings that would not be safe, or cannot work on this machine."""
    problems = Problems()
    if not is_loopback(section.host) and section.keys is None:
        problems.append(
            f"serve.host={section.host}: other machines could use the models; ask for keys: run `scaletrain keys add "
            "NAME --keys keys.json`, then give --keys keys.json; or leave --host out to listen on this machine alone"
        )
    if find_spec("uvicorn") is None or find_spec("starlette") is None or find_spec("httptools") is None:
        problems.append("the server's packages are not installed; run: pip install 'scaletrain[serve]'")
    if section.keys:
        with problems.collecting():
            if not KeyRing(Path(section.keys)).has_keys:
                problems.append(f"{section.keys}: has no key; add one: scaletrain keys add NAME --keys {section.keys}")
    problems.raise_any()


def _run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

"""A bucket behind the fault proxy: workers reach it through the proxy, the test directly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from attempts_on_processes import Attempt, Ended

from bucket_servers import environment_of
from fault_proxy import FaultProxy, Request
from scaletrain import checkpoint
from scaletrain.data.prepare import prepare
from scaletrain.layout import RunLayout
from workers import Prepared, tiny_config


@dataclass(frozen=True)
class Store:
    """A bucket with a dataset and a model."""

    prepared: Prepared
    proxy: FaultProxy
    options: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_google(self) -> bool:
        return self.prepared.root.startswith("gs:")

    def attempt(self, name: str, **overrides: object) -> list[Ended]:
        environment = environment_of(self.proxy.url) | self.environment
        return Attempt(
            self.prepared,
            name,
            environments={0: environment, 1: environment},
            storage__options__endpoint_url=self.proxy.url,
            **{f"storage__options__{key}": value for key, value in self.options.items()},
            **overrides,
        ).wait()


@contextmanager
def faulty_store(root: str, server: str) -> Iterator[Store]:
    """Prepare dataset and model in a new bucket of a server, and put the proxy before it."""
    found = prepare(tiny_config(root), use_ray=False)
    with FaultProxy(server) as proxy:
        options = {"token": "anon"} if root.startswith("gs:") else {}
        yield Store(Prepared(root, found.dataset_url, found.model_url), proxy, options)


def assert_done(ended: list[Ended]) -> None:
    assert [(each.step, each.error) for each in ended] == [(12, None)] * len(ended)


def writes(request: Request) -> bool:
    return request.method in ("PUT", "POST")


def after_commit(run: RunLayout, *, step: int) -> Callable[[Request], bool]:
    """Match every POST and PUT once a run has committed a step; the names that are written are not in all of them."""
    committed: list[checkpoint.Manifest] = []

    def is_late(request: Request) -> bool:
        if not committed and writes(request):
            newest = checkpoint.latest(run)
            committed.extend([newest] if newest is not None and newest.step >= step else [])
        return bool(committed) and writes(request)

    return is_late

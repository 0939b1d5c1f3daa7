"""The section `serve` of the configuration: where the API listens, what it allows, and how many replicas answer."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from scaletrain.config_section import Count, Float, Int, Number, Positive, Section


class ReplicaRange(Section):
    """As many replicas as the load asks for, within bounds."""

    min: Count = Field(description="replicas that are always there")
    max: Count = Field(description="the most replicas")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.min > self.max:
            yield "min", f"got {self.min}, which is above max={self.max}; swap them"


def _replicas_kind(value: object) -> str:
    return "<range>" if isinstance(value, (dict, ReplicaRange)) else "<number>"


class ServeSection(Section):
    """What `scaletrain serve` offers, and to whom."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; any other than this machine's own needs keys"
    )
    port: Annotated[Int, Field(ge=0, le=65535)] = Field(8000, description="0: any free one")
    keys: str | None = Field(
        None,
        min_length=1,
        description="the file of API keys that `scaletrain keys add` makes; none: no key is asked for",
    )
    allow_origins: tuple[str, ...] = Field(
        (), description="web sites whose pages may call the API, as https://shop.example; *: all"
    )
    feedback: str | None = Field(
        None, min_length=1, description="a file for the web chat's thumbs up and down; none: it shows no thumbs"
    )
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="cuda without a GPU is an error")
    engine: Literal["auto", "batch", "vllm"] = Field("auto", description="auto: vLLM on a GPU where it is installed")
    context_tokens: Count | None = Field(None, description="of a prompt and its answer; the model's own by default")
    replicas: (
        Annotated[
            Annotated[Count, Tag("<number>")] | Annotated[ReplicaRange, Tag("<range>")], Discriminator(_replicas_kind)
        ]
        | None
    ) = Field(None, description="on Ray Serve: a number, or {min, max}; none: one engine in this process, without Ray")
    gpus_per_replica: Annotated[Float, Field(ge=0, le=8)] | None = Field(
        None, description="by default 1 on CUDA, 0 on CPU"
    )
    cpus_per_replica: Positive = Field(1.0, description="logical CPUs of the cluster that a replica takes")
    max_running: Count = Field(64, description="requests that an engine answers at once")
    max_waiting: Number = Field(256, description="requests that wait for an engine; more get status 429")
    max_choices: Annotated[Int, Field(ge=1, le=128)] = Field(8, description="answers to one request (n)")
    max_body_bytes: Count = Field(4 * 2**20, description="of one request; longer ones get status 413")
    max_connections: Count = Field(4096, description="open at once; more get status 503")
    timeout_s: Positive = Field(600.0, description="the longest that one request may take")
    drain_s: Annotated[Float, Field(ge=0)] = Field(
        30.0, description="how long running requests may go on after SIGTERM"
    )
    reload_s: Annotated[Float, Field(ge=0)] = Field(
        30.0, description="how often to look for a newer version of a model; 0: never"
    )

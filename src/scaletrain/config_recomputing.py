"""model.gradient_checkpointing: how much of the forward pass is computed again instead of kept."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Tag

from scaletrain.config_section import Share

Recomputing = bool | float | Literal["selective"]  # false: nothing, true: every layer, a number: a share of the layers


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "<switch>"
    return "<word>" if isinstance(value, str) else "<number>"


def _known_word(value: object) -> object:
    """One message for all that may be given, whichever of them was meant."""
    if value not in ("selective", "auto"):
        raise ValueError("give true, false, selective, auto, or a share of the layers, as 0.5")
    return value


RecomputingField = Annotated[
    Annotated[bool, Tag("<switch>")]
    | Annotated[Literal["selective", "auto"], BeforeValidator(_known_word), Tag("<word>")]
    | Annotated[Share, Tag("<number>")],
    Discriminator(_kind),
]


def as_written(wanted: Recomputing | Literal["auto"]) -> str:
    """The value as one writes it in a configuration."""
    return str(wanted).lower()


def selective_problems(wanted: Recomputing | Literal["auto"], *, kernels: str, zero_stage: int) -> Iterator[str]:
    """Why "selective" cannot be had, with what to do about each reason; nothing where it can, or is not wanted."""
    if wanted != "selective":
        return
    if zero_stage == 3:
        yield "got selective, but zero.stage=3 gathers weights inside the layers; use true, or a share as 0.5"
    if kernels == "liger":
        yield "got selective, but kernels=liger writes over what would be kept; use kernels: auto, true, or a share"

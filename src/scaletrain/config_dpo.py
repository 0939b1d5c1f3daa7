"""The section of training on preferences: how strongly an answer is preferred, and how sure the votes are."""

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from scaletrain.config_section import Float, Positive, Section

PAIRS_FORMAT = "preferences"  # the corpora that have pairs of answers


class DpoSection(Section):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290)."""

    beta: Positive = Field(0.1, description="how closely the model keeps to where it began: higher is closer")
    label_smoothing: Annotated[Float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="the share of pairs that are taken to be the wrong way round"
    )


def format_problems(formats: Sequence[str], *, objective: str) -> Iterator[tuple[str, str]]:
    """Yield (field, message) for each corpus that does not go with the objective: dpo and pairs go together."""
    for index, name in enumerate(formats):
        field = f"data.corpora.{index}.format"
        if objective == "dpo" and name != PAIRS_FORMAT:
            yield (
                field,
                f"got {name}, and train.objective: dpo learns from pairs of answers; use format: {PAIRS_FORMAT}, or "
                "remove the objective",
            )
        if objective != "dpo" and name == PAIRS_FORMAT:
            yield field, f"got {name}, which has pairs of answers; set train.objective: dpo, or use another format"

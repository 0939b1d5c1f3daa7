"""The section `sweep.scaling`: at which numbers of workers and ZeRO stages a scaling study measures a configuration."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from scaletrain.config_section import Count, Int, Positive, Section, refuse_booleans

Mode = Literal["strong", "weak"]
Stage = Annotated[Literal[0, 1, 2, 3], BeforeValidator(refuse_booleans)]


class ScalingStudySection(Section):
    """What a scaling study measures: one configuration at several numbers of workers and ZeRO stages."""

    worker_counts: tuple[Count, ...] = Field(min_length=1, description="numbers of workers, as [1, 2, 4, 8]")
    stages: tuple[Stage, ...] | None = Field(
        None, min_length=1, description="ZeRO stages, as [1, 2, 3]; zero.stage alone by default"
    )
    modes: tuple[Mode, ...] = Field(
        ("strong",),
        min_length=1,
        description="a list; strong: the global batch stays the same; weak: it grows with the workers",
    )
    settling_steps: Count = Field(5, description="first steps of each point, which are not measured")
    measured_steps: Annotated[Int, Field(ge=5, le=100_000)] = Field(
        20, description="steps after those, which are measured"
    )
    deadline_hours: Positive | None = Field(
        None, description="for the whole run; the cheapest point that meets it is the best one"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        lists: tuple[tuple[str, Sequence[object]], ...] = (
            ("worker_counts", self.worker_counts),
            ("stages", self.stages or ()),
            ("modes", self.modes),
        )
        for name, values in lists:
            twice = list(dict.fromkeys(each for each in values if values.count(each) > 1))
            if twice:
                yield name, f"has {', '.join(map(str, twice))} more than once; give each once"

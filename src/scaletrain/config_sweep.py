"""The section `sweep`: which fields vary over which values, how trials are chosen, and when one is given up early."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from scaletrain.config_scaling import ScalingStudySection
from scaletrain.config_section import Count, Float, Int, Number, Positive, Section, Share

Metric = Literal["validation_loss", "loss", "tokens_per_s"]

# What a clone of another trial may change on its way: what alters neither the order of the rows nor the model.
MUTABLE = (
    "train.learning_rate",
    "train.min_learning_rate_ratio",
    "train.warmup_steps",
    "train.weight_decay",
    "train.eps",
    "train.max_grad_norm",
)


class Parameter(Section):
    """The values of one field; exactly one of the five kinds."""

    grid: tuple[Any, ...] | None = Field(None, description="a list of values; every combination of grids is tried")
    choice: tuple[Any, ...] | None = Field(None, description="a list of values, one of which a trial gets")
    uniform: tuple[Float, Float] | None = Field(None, description="[lowest, highest], every value as likely")
    log: tuple[Positive, Positive] | None = Field(None, description="[lowest, highest], every magnitude as likely")
    integer: tuple[Int, Int] | None = Field(None, description="[lowest, highest], whole numbers")
    when: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="another parameter and its values for which this one varies: {zero.stage: [3]}",
    )

    @property
    def values(self) -> tuple[Any, ...] | None:
        """The values that are listed; None for a range."""
        return self.grid if self.grid is not None else self.choice

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of a range."""
        found = self.uniform or self.log or self.integer
        assert found is not None
        return found

    def rules(self) -> Iterator[tuple[str, str]]:
        kinds = ("grid", "choice", "uniform", "log", "integer")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            yield "grid", f"got {got} of grid, choice, uniform, log and integer; give exactly one"
            return
        if self.values is not None:
            if not self.values:
                yield given[0], "has no values; list at least one"
        elif self.bounds[0] >= self.bounds[1]:
            low, high = self.bounds
            yield given[0], f"got [{low:g}, {high:g}]; give the lowest value first, and a higher one"


class StoppingSection(Section):
    """When a trial is given up early, or goes on as a clone of a better one."""

    kind: Literal["none", "asha", "median", "pbt"] = Field(
        "none",
        description="asha: only the best part goes past each rung; median: who is worse than the median is stopped; "
        "pbt: the worst go on as clones of the best, with other values",
    )
    grace_steps: Count = Field(1, description="asha, median: no trial is stopped before; asha's first rung")
    reduction: Annotated[Float, Field(gt=1)] = Field(3.0, description="asha: one of so many goes past a rung")
    every_steps: Count | None = Field(None, description="pbt: steps between two comparisons of all trials")
    share: Annotated[Float, Field(gt=0, le=0.5)] = Field(0.25, description="pbt: so many of the worst become clones")
    factor: Annotated[Float, Field(gt=1)] = Field(1.25, description="pbt: a clone's numbers are multiplied or divided")
    resample: Share = Field(0.25, description="pbt: how often a clone's value is drawn anew instead")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.kind == "pbt" and self.every_steps is None:
            yield "every_steps", "missing; kind: pbt compares the trials every so many steps"
        if self.kind != "pbt" and self.every_steps is not None:
            yield "every_steps", "goes with kind: pbt; remove it, or change kind"


class LimitSection(Section):
    """What the whole sweep may take; when it is reached, all trials are saved and stopped."""

    hours: Positive | None = Field(None, description="of wall time, summed over the commands that work on the sweep")
    usd: Positive | None = Field(None, description="of all trials together, where prices are known")


class SweepSection(Section):
    """Many runs of one configuration, which differ in some fields."""

    kind: Literal["search", "scaling"] = Field(
        "search", description="search: look for the best values; scaling: see how training scales (docs/scaling.md)"
    )
    parameters: dict[str, Parameter] = Field(
        default_factory=dict, description="fields and their values, as train.learning_rate: {log: [1.0e-5, 1.0e-3]}"
    )
    search: Literal["grid", "random", "tpe"] = Field(
        "random", description="grid: all listed values; random; tpe: learns from the trials before (Optuna)"
    )
    trials: Count | None = Field(None, description="how many; by default one for each combination of grids")
    at_once: Count = Field(1, description="trials that train at the same time, at most; each has its own workers")
    metric: Metric = Field("validation_loss", description="what is compared; tokens_per_s: more is better")
    every_steps: Count | None = Field(
        None, description="steps between two looks at loss or tokens_per_s, which are averaged; a twentieth of the run"
    )
    scheduler: StoppingSection = Field(default_factory=StoppingSection)  # type: ignore[arg-type]
    limit: LimitSection = Field(default_factory=LimitSection)  # type: ignore[arg-type]
    retries: Number = Field(1, description="how often a trial that failed is begun again from its newest commit")
    scaling: ScalingStudySection | None = Field(None, description="of kind: scaling; {worker_counts: [1, 2, 4]}")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.kind == "scaling":
            yield from self._study_rules()
            return
        if self.scaling is not None:
            yield "scaling", "goes with kind: scaling; remove it, or change kind"
        if not self.parameters:
            yield "parameters", "missing; give fields and their values, as {train.eps: {log: [1.0e-9, 1.0e-7]}}"
        ranges = [name for name, each in self.parameters.items() if each.values is None]
        listed = [name for name, each in self.parameters.items() if each.values is not None]
        if self.search == "grid" and ranges:
            yield "search", f"grid needs lists of values, but {', '.join(ranges)} has a range; use random or tpe"
        only_grids = all(each.grid is not None for each in self.parameters.values())
        if self.trials is None and self.search != "grid" and not only_grids:
            yield "trials", "missing; say how many, for only a grid has an end of its own"
        for name, each in self.parameters.items():
            for other in each.when:
                if other not in listed:
                    yield f"parameters.{name}.when", f"got {other}, which is no parameter with a list of values here"
        if self.every_steps is not None and self.metric == "validation_loss":
            yield "every_steps", "goes with metric: loss or tokens_per_s; train.evaluate_every_steps sets it here"
        if self.scheduler.kind == "pbt" and self.trials is not None and self.at_once < self.trials:
            yield "at_once", f"got {self.at_once}; pbt needs all trials={self.trials} at once"

    def _study_rules(self) -> Iterator[tuple[str, str]]:
        """A scaling study has points instead of trials: one after the other, and nothing is searched."""
        if self.scaling is None:
            yield "scaling", "missing; kind: scaling needs the numbers of workers, as scaling: {worker_counts: [1, 2]}"
        for name, field in type(self).model_fields.items():
            is_own = name in ("kind", "scaling", "limit")
            if not is_own and getattr(self, name) != field.get_default(call_default_factory=True):
                yield name, "goes with kind: search; remove it, or change kind"

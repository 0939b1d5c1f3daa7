"""The budget section: what a run may use up, and what its machines cost where no table tells."""

from collections.abc import Iterator

from pydantic import Field

from scaletrain.config_section import Positive, Section


class BudgetSection(Section):
    """What the whole run may use up, over all its attempts; and what its machines cost, where no table tells."""

    usd: Positive | None = Field(None, description="US dollars for machines; the run saves and stops before it is more")
    hours: Positive | None = Field(None, description="in which it holds machines; time between two commands is free")
    usd_per_machine_hour: Positive | None = Field(
        None, description="for each machine, the head's too: your own machines, or another cloud's"
    )
    prices: str | None = Field(
        None, min_length=1, description="a price table of your own, or of `scaletrain prices refresh`; a file or URL"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.usd_per_machine_hour is not None and self.prices is not None:
            yield "prices", "got a table, and usd_per_machine_hour for all machines; keep one of the two"

"""What every section of the configuration is made of: its base class, and the types of its fields."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class BrokenRulesError(ValueError):
    """Fields of a section that do not go together: (field, what is wrong and what to do) for each."""

    def __init__(self, broken: tuple[tuple[str, str], ...]) -> None:
        self.broken = broken
        super().__init__("\n".join(f"{field}: {message}" for field, message in broken))


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield (field, message) for each rule between fields that is broken; the message names the fields it is about.

        Checked when every field is right on its own.
        """
        yield from ()

    @model_validator(mode="after")
    def _follows_its_rules(self) -> Self:
        if broken := tuple(self.rules()):
            raise BrokenRulesError(broken)
        return self


def refuse_booleans(value: object) -> object:
    """Pydantic would take true and false for the numbers 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("give a number")
    return value


def _refuse_collections(value: object) -> object:
    """One message for the four types that an option may have."""
    if not isinstance(value, (str, int, float, bool)):
        raise ValueError("give text, a number, true or false")
    return value


Int = Annotated[int, BeforeValidator(refuse_booleans)]
Float = Annotated[float, BeforeValidator(refuse_booleans), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1, le=2**40)]
Number = Annotated[Int, Field(ge=0, le=2**40)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
Share = Annotated[Float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Option = Annotated[str | int | float | bool, BeforeValidator(_refuse_collections)]

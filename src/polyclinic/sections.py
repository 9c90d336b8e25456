"""The base of every section of a recipe, and the kinds of numbers and names its keys take."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(ge=1, strict=True)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
NameOrNumber = Annotated[Name, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


class Section(BaseModel):
    """Base of all sections: no unknown keys, no change after reading, no silent conversion of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

"""What every part of a recipe's schema is made of."""

from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("must say something; it is empty")
    return text


Text = Annotated[str, AfterValidator(_said)]
"""Text that is not blank."""


def _named(text: str) -> str:
    if not text.strip() or text.startswith((".", "~")) or "/" in text:
        raise ValueError(f"{text!r} cannot name a run's folder: no slash, and no dot or ~ at its beginning")
    return text


Name = Annotated[str, AfterValidator(_named)]
"""What a folder can be called that stays where it is put."""
Positive = PositiveInt
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = NonNegativeFloat
Seconds = PositiveFloat


class Section(BaseModel):
    """A part of a recipe: immutable, and unknown keys are refused."""

    called: ClassVar[str] = "recipe"
    """What a file of it is."""
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section inside a field's annotation, `X`, `X | None` or `list[X]`; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)

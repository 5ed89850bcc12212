"""The options of `rlcore curate`."""

import argparse
from typing import Annotated

from pydantic import Field, model_validator

from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Fraction, Positive, Section


class CurateOptions(Section):
    """Settings beside the recipe, which gives model, data, messages, sampling and rewards."""

    samples: Positive = Field(8, description="first attempts of each problem, by which its pass rate is measured")
    ngram: Positive = Field(
        13, description="a problem that shares so many words in a row with a held-out one is removed"
    )
    against: tuple[str, ...] = Field(
        (), description="more files or hub names of held-out problems; the recipe's always"
    )
    near: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="share of common five-word runs from which two problems are duplicates; 1: equal words only"
    )
    lowest: Fraction = Field(0.1, description="pass rate below which a problem is not kept")
    highest: Fraction = Field(0.9, description="pass rate above which a problem is not kept")
    count: Positive | None = Field(None, description="problems selected of those kept; all when left out")
    diversity: Fraction = Field(0.5, description="of the selection: 0 looks at difficulty alone, 1 at new words alone")

    @model_validator(mode="after")
    def _in_order(self) -> "CurateOptions":
        if self.lowest > self.highest:
            raise ValueError(f"lowest {self.lowest} is above highest {self.highest}")
        return self


def add_arguments(command: argparse.ArgumentParser) -> None:
    """A flag for each setting."""
    for name, field in CurateOptions.model_fields.items():
        shown = "" if field.default in (None, ()) else f" ({field.default})"
        nargs = "*" if name == "against" else None
        command.add_argument(f"--{name}", default=field.default, nargs=nargs, help=f"{field.description}{shown}")


def parse_options(arguments: argparse.Namespace) -> CurateOptions:
    """The settings given as flags. Raises UserError for an invalid one."""
    given = {name: getattr(arguments, name) for name in CurateOptions.model_fields}
    return validated(CurateOptions, given, "curate")

"""Generated grid tasks in ARC's form, small enough for a tiny model: turn the grid, change its colours, or both.

A task's rule is a `Transformation`. Splits are by rule: no held-out task has a rule that a training task shows.
"""

import zlib
from collections.abc import Iterator
from itertools import combinations, permutations
from random import Random
from typing import Any, Literal

from pydantic import Field, model_validator

from rewards.grids import Grid
from rlcore.data.table import Table
from rlcore.data.tasks import GOLD, written_row
from rlcore.data.transformations import SAME_COLOURS, SYMMETRIES, Transformation
from rlcore.entries import Row, Source
from rlcore.errors import UserError
from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Positive, Section

SPLITS = {"test": (0, 1), "validation": (2,), "train": range(3, 10)}
"""Which tenths of all rules belong to a split."""


class Options(Section):
    """Settings of the generator."""

    size: int = Field(3, ge=2, le=10, description="rows and columns of a grid")
    colours: int = Field(4, ge=2, le=10)
    rules: list[Literal["turn", "recolour", "swap"]] = Field(
        ["turn", "recolour"], min_length=1, description="recolour: each colour becomes another; swap: two change places"
    )
    demonstrations: int = Field(3, ge=2)
    fewest: int | None = Field(None, ge=2, description="demonstrations, where tasks differ in their number")
    count: Positive = 2_000
    seed: int = 0

    @model_validator(mode="after")
    def _can_be_made(self) -> "Options":
        if self.fewest and self.fewest > self.demonstrations:
            raise ValueError(f"fewest {self.fewest} is more than demonstrations {self.demonstrations}")
        if "recolour" in self.rules and self.colours > 6:
            raise ValueError(f"recolour has too many rules for {self.colours} colours: take 6, or the rule swap")
        return self


def generate(options: dict[str, Any], split: str) -> Table:
    """Tasks of one split, each of a rule drawn from those of the split.

    Raises UserError for an unknown split or option, or where no rule of these options belongs to the split.
    """
    settings = validated(Options, options, "data.options")
    if split not in SPLITS:
        raise UserError(f"data split {split} is unknown to the grids source; it has {', '.join(SPLITS)}")
    rules = [rule for rule in _rules(settings) if zlib.crc32(rule.name.encode()) % 10 in SPLITS[split]]
    if not rules:
        raise UserError(f"data.options: no rule belongs to the {split} split; raise colours, or add to rules")
    rng = Random(f"{settings.seed} {split}")
    rows = [_row(number, rng.choice(rules), settings, rng) for number in range(settings.count)]
    return Table(f"grids {split}", rows, list(range(1, len(rows) + 1)))


def _rules(settings: Options) -> list[Transformation]:
    """All rules of these options but the one that changes nothing."""
    turns = SYMMETRIES if "turn" in settings.rules else SYMMETRIES[:1]
    return [Transformation(*turn, colours) for colours in _exchanges(settings) for turn in turns][1:]


def _exchanges(settings: Options) -> Iterator[tuple[int, ...]]:
    """What may become of the ten colours, nothing first."""
    used, rest = SAME_COLOURS[: settings.colours], SAME_COLOURS[settings.colours :]
    if "recolour" in settings.rules:
        yield from ((*exchange, *rest) for exchange in permutations(used))
        return
    yield SAME_COLOURS
    if "swap" in settings.rules:
        for pair in combinations(used, 2):
            there = dict(zip(pair, reversed(pair), strict=True))
            yield tuple(there.get(colour, colour) for colour in SAME_COLOURS)


def _row(number: int, rule: Transformation, settings: Options, rng: Random) -> Row:
    """A task: demonstrations as the settings say, and one grid that is asked."""
    number_shown = rng.randint(settings.fewest or settings.demonstrations, settings.demonstrations)
    grids = [_grid(rule, settings, rng) for _ in range(number_shown + 1)]
    *shown, asked = ({"input": grid, "output": rule.apply(grid)} for grid in grids)
    return {"id": f"{number}", "rule": rule.name, "train": shown, **asked}


def _grid(rule: Transformation, settings: Options, rng: Random) -> Grid:
    """A grid that the rule changes."""
    cells = range(settings.size)
    while True:
        grid = [[rng.randrange(settings.colours) for _ in cells] for _ in cells]
        if rule.apply(grid) != grid:
            return grid


GRIDS = Source(text="prompt", gold=GOLD, complete=written_row, make=generate, domain="grids")

"""Transformations of grids that can be undone exactly: the symmetries of the square, and exchanges of colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

from rewards.grids import Grid

SAME_COLOURS = tuple(range(10))


@dataclass(frozen=True, slots=True)
class Transformation:
    """Transposes a grid (or not), turns it by quarters to the left, and puts colour `colours[c]` in the place of c.

    Transposition and turns together are all eight symmetries of the square, the flips among them.
    """

    transposed: bool = False
    quarters: int = 0
    colours: tuple[int, ...] = SAME_COLOURS

    def apply(self, grid: Grid) -> Grid:
        if self.transposed:
            grid = _transpose(grid)
        return _recolour(_turn(grid, self.quarters), self.colours)

    def undo(self, grid: Grid) -> Grid:
        """The grid that `apply` gives `grid` for."""
        inverse = sorted(SAME_COLOURS, key=self.colours.__getitem__)
        grid = _turn(_recolour(grid, inverse), -self.quarters)
        return _transpose(grid) if self.transposed else grid

    @property
    def name(self) -> str:
        """In words: `transposed, turned 90°, colours 1023456789`; `as it is` for the identity."""
        parts = ["transposed"] * self.transposed
        parts += [f"turned {90 * self.quarters}°"] if self.quarters else []
        parts += [] if self.colours == SAME_COLOURS else ["colours " + "".join(map(str, self.colours))]
        return ", ".join(parts) or "as it is"


IDENTITY = Transformation()
SYMMETRIES = tuple(product((False, True), range(4)))
"""Transposed, quarters: the eight of the square, the identity first."""


def drawn(rng: Random, colours: Sequence[int] = SAME_COLOURS) -> Transformation:
    """A symmetry and an exchange of these colours, each uniform."""
    transposed, quarters = rng.choice(SYMMETRIES)
    exchange = dict(zip(colours, rng.sample(colours, len(colours)), strict=True))
    return Transformation(transposed, quarters, tuple(exchange.get(colour, colour) for colour in SAME_COLOURS))


def _transpose(grid: Grid) -> Grid:
    return [list(column) for column in zip(*grid, strict=True)]


def _turn(grid: Grid, quarters: int) -> Grid:
    for _ in range(quarters % 4):
        grid = _transpose(grid)[::-1]
    return grid


def _recolour(grid: Grid, colours: Sequence[int]) -> Grid:
    return [[colours[cell] for cell in row] for row in grid]

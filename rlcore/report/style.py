"""The style of plots: colours of arms, strokes, and paper for light and dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = ("#2a78d6", "#e0762b", "#1f9e77", "#a066d3", "#d14a7c", "#8a9a1e", "#17a2b8", "#b5651d")
"""Colours of the arms in the order they are shown, readable on light and on dark paper."""
GREY = "#8b8b93"
"""The base's colour."""
Style = str | tuple[int, tuple[int, int]]
SOLID: Style = "-"
DASHED: Style = (0, (4, 2))


@dataclass(frozen=True, slots=True)
class Theme:
    """Paper and ink."""

    name: str
    paper: str
    ink: str
    grid: str

    @property
    def rc(self) -> Any:
        """The theme as matplotlib settings."""
        return {
            "font.size": 10,
            "text.parse_math": False,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "xtick.bottom": False,
            "ytick.left": False,
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "grid.color": self.grid,
            "axes.edgecolor": self.grid,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
        }


THEMES = (Theme("light", "#ffffff", "#33363d", "#e4e5ea"), Theme("dark", "#1b1d23", "#c9ccd4", "#33363f"))


def panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `count` panels side by side; `height` in inches."""
    figure = Figure(figsize=(11, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def short_name(arm: str) -> str:
    """The arm's name, cut so that it leaves room for the plot."""
    return arm if len(arm) <= 20 else arm[:19] + "…"


def name_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Writes the names of lines at the right: height, text and colour of each, moved apart if they would overlap.

    A line without a height has no name.
    """
    low, high = axes.get_ylim()
    ends = sorted(end for end in ends if math.isfinite(end[0]))
    heights = [height for height, _, _ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + 0.055 * (high - low))
    shift = float(np.mean(heights) - np.mean([height for height, _, _ in ends])) if ends else 0.0
    for height, (_, text, colour) in zip(heights, ends, strict=True):
        at = (1.01, height - shift)
        axes.annotate(text, at, xycoords=("axes fraction", "data"), color=colour, va="center", fontsize=9)

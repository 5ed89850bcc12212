"""The gain from more attempts: majority votes in parallel against corrections, and attempts in a row.

The forms of Kumar et al. 2024 (arXiv 2409.12917): votes among K answers against votes among K/2 answers that were each
corrected once (figure 1, right), and accuracy after n attempts in a row.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlcore.evaluate.results import Interval
from rlcore.report.run_folder import RunFolder
from rlcore.report.style import DASHED, SOLID, Style, name_ends, short_name
from rlcore.report.table import Row, arms_of, result_rows

Points = dict[int, Interval]
"""Attempts of a problem, and the accuracy they buy."""


def compute(runs: Sequence[RunFolder], colours: Mapping[str, str]) -> Figure | None:
    """Votes among K first answers (dashed) against votes among K/2 corrected ones (solid), by attempts sampled."""
    rows = [row for row in _rows(runs) if len(parallel_votes(row)) > 1]
    if not rows:
        return None
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    ends = []
    for row in rows:
        ways = (("corrected once", corrected_votes(row), SOLID), ("in parallel", parallel_votes(row), DASHED))
        for words, points, style in ways:
            if points:
                _draw(axes, points, colours[row.arm], style)
                ends.append((100 * points[max(points)][0], f"{short_name(row.arm)} {words}", colours[row.arm]))
    axes.set_xscale("log", base=2)
    ticks = sorted({x for row in rows for x in (*parallel_votes(row), *corrected_votes(row))})
    axes.set_xticks(ticks, [str(x) for x in ticks])
    axes.set_xlabel("attempts sampled of each problem")
    axes.set_title("Accuracy of a majority vote, %")
    name_ends(axes, ends)
    return figure


def sequential(runs: Sequence[RunFolder], colours: Mapping[str, str]) -> Figure | None:
    """Accuracy after n attempts in a row, where there are more than two."""
    curves = {}
    for row in _rows(runs):
        numbers = sorted(int(name[1:]) for name in row.metrics if re.fullmatch(r"t\d+", name))
        if len(numbers) > 2:
            curves[row.arm] = {number: row.metrics[f"t{number}"] for number in numbers}
    if not curves:
        return None
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    for arm, points in curves.items():
        _draw(axes, points, colours[arm], SOLID)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("attempts in a row")
    axes.set_title("Accuracy after n attempts in a row, %")
    name_ends(axes, [(100 * p[max(p)][0], short_name(arm), colours[arm]) for arm, p in curves.items()])
    return figure


def parallel_votes(row: Row) -> Points:
    """Attempts sampled, and the accuracy of a vote among as many first answers."""
    return _votes(row, attempt=1)


def corrected_votes(row: Row) -> Points:
    """Attempts sampled, and the accuracy of a vote among half as many second answers."""
    return {2 * k: interval for k, interval in _votes(row, attempt=2).items()}


def _votes(row: Row, attempt: int) -> Points:
    found = {}
    for name, interval in row.metrics.items():
        if match := re.fullmatch(rf"maj@(\d+)_t{attempt}", name):
            found[int(match[1])] = interval
    alone = row.metrics.get(f"t{attempt}")
    return dict(sorted(({1: alone} | found if alone else found).items())) if found else {}


def _rows(runs: Sequence[RunFolder]) -> list[Row]:
    """The sampled row of each arm, its mean where there are several runs."""
    results = [result for run in runs for result in run.results]
    rows = [row for row in result_rows(results) if row.mode == "sampled"]
    return [next(row for row in rows if row.arm == arm) for arm in arms_of(results) if any(r.arm == arm for r in rows)]


def _draw(axes: Axes, points: Points, colour: str, style: Style) -> None:
    heights_N3 = 100 * np.array(list(points.values()))
    axes.fill_between(list(points), heights_N3[:, 1], heights_N3[:, 2], color=colour, alpha=0.1, linewidth=0)
    face = colour if style == SOLID else "none"
    axes.plot(list(points), heights_N3[:, 0], color=colour, linestyle=style, linewidth=1.8)
    axes.scatter(list(points), heights_N3[:, 0], s=24, facecolors=face, edgecolors=colour, linewidths=1.3, zorder=3)

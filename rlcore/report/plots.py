"""The plots of a report. Every arm keeps its colour; lines have their names at their ends instead of a legend."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlcore.evaluate.metrics import attempts_in
from rlcore.evaluate.results import Interval
from rlcore.report.render import draw
from rlcore.report.run_folder import RunFolder, results_of
from rlcore.report.style import DASHED, GREY, PALETTE, SOLID, Style, name_ends, panels, short_name
from rlcore.report.table import BASE_ARM, Row, arms_of, headline_mode, headline_rows, is_base

Points = dict[int, Interval]
"""Accuracy by the number of attempts sampled of a problem."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What plots are drawn of: runs, the rows of their table, and the colour of every arm."""

    runs: Sequence[RunFolder]
    rows: Sequence[Row]
    colours: dict[str, str]


def arm_colours(runs: Sequence[RunFolder]) -> dict[str, str]:
    """The colour of every arm, the base's included."""
    results = results_of(runs)
    arms = list(dict.fromkeys([*arms_of(results), *(run.arm for run in runs)]))
    others = [arm for arm in arms if not is_base(arm)]
    colours = {arm: PALETTE[i % len(PALETTE)] for i, arm in enumerate(others)}
    return dict.fromkeys([BASE_ARM, *filter(is_base, arms)], GREY) | colours


def draw_plots(folder: Path, runs: Sequence[RunFolder], rows: Sequence[Row]) -> dict[str, dict[str, Path]]:
    """Draws every plot that the runs have data for: `{plot: {theme: file}}`. Raises UserError if it cannot write.

    `rows` are the `result_rows` of the runs.
    """
    shown = Shown(runs, rows, arm_colours(runs))
    drawn = {name: draw(folder, name, partial(plot, shown)) for name, plot in PLOTS.items()}
    return {name: files for name, files in drawn.items() if files}


def accuracy(shown: Shown) -> Figure | None:
    """Accuracy of the first and the last attempt, and flips between them, over steps."""
    runs = shown.runs
    last = f"t{_last_attempt(runs)}"
    drawn = {"Accuracy, %": {last: "attempt 2" if last == "t2" else "last attempt", "t1": "attempt 1"}}
    if last != "t1":
        drawn["Flips, % of all problems"] = {"i_to_c": "i→c", "c_to_i": "c→i"}
    if not any(run.series(f"train/{last}")[0] or any(result.step for result in run.results) for run in runs):
        return None
    figure, each = panels(len(drawn), height=4.2)
    for axes, (title, metrics) in zip(each, drawn.items(), strict=True):
        ends = []
        for (name, words), style in zip(metrics.items(), (SOLID, DASHED), strict=False):
            for arm, colour in shown.colours.items():
                mine = [run for run in runs if run.arm == arm]
                trained = _training_lines(axes, mine, f"train/{name}", 100, colour, style)
                measured = _evaluation_points(axes, shown, arm, name, style)
                if (height := trained if measured is None else measured) is not None:
                    ends.append((height, f"{short_name(arm)} {words}", colour))
        _finish(axes, title, ends)
    return figure


def kl(shown: Shown) -> Figure | None:
    """KL divergence from the reference policy, each attempt in its own panel, over steps."""
    runs = shown.runs
    names = [f"learner/kl_t{a + 1}" for a in range(_last_attempt(runs))]
    names = [name for name in names if any(run.series(name)[0] for run in runs)]
    if not names:
        return None
    figure, each = panels(len(names), height=3.4)
    for axes, name in zip(each, names, strict=True):
        ends = []
        for arm, colour in shown.colours.items():
            height = _training_lines(axes, [run for run in runs if run.arm == arm], name, 1, colour, SOLID)
            if height is not None:
                ends.append((height, short_name(arm), colour))
        _finish(axes, f"KL from the reference, attempt {name.rpartition('t')[2]}, nats a token", ends)
    return figure


def edit_ratio(shown: Shown) -> Figure | None:
    """Shares of evaluated problems by the edit-distance ratio between attempts."""
    colours = shown.colours
    results = [result for result in results_of(shown.runs) if "edit_ratio" in result.histograms]
    if not results:
        return None
    figure, (axes,) = panels(1, height=3.2)
    tops = []
    for arm in arms_of(results):
        histograms = [result.histograms["edit_ratio"] for result in results if result.arm == arm]
        edges = np.array(histograms[0]["edges"])
        counts = np.sum([h["counts"] for h in histograms if len(h["edges"]) == len(edges)], axis=0)
        shares = 100 * counts / max(counts.sum(), 1)
        axes.stairs(shares, edges, color=colours[arm], linewidth=1.8)
        axes.stairs(shares, edges, color=colours[arm], fill=True, alpha=0.08)
        tops.append((arm, edges, shares))
    filled = max(edges[1:][shares > 0].max(initial=0.1) for _, edges, shares in tops)
    axes.set_xlim(0, min(1, filled * 1.15))
    axes.set_ylim(0)
    axes.set_title("Edit distance between the attempts / their lengths, % of problems (0: a copy)")
    for i, (arm, _, _) in enumerate(tops):
        at = (0.99, 0.95 - 0.1 * i)
        axes.annotate(short_name(arm), at, xycoords="axes fraction", color=colours[arm], weight="bold", ha="right")
    return figure


def _last_attempt(runs: Sequence[RunFolder]) -> int:
    logged = {name.removeprefix("train/") for run in runs for record in run.metrics for name in record}
    evaluated = {name for result in results_of(runs) for e in result.evaluations for name in e.metrics}
    return max(attempts_in(logged | evaluated), default=2)


def _training_lines(
    axes: Axes, runs: Sequence[RunFolder], name: str, scale: float, colour: str, style: Style
) -> float | None:
    """The smoothed mean of one arm's runs over a band of their smoothed spread; returns the height of its end."""
    steps, values_RS = _common(run.series(name) for run in runs)
    if not steps:
        return None
    lines_RS = np.array([_smooth(scale * values_S) for values_S in values_RS])
    axes.fill_between(steps, lines_RS.min(0), lines_RS.max(0), color=colour, alpha=0.12, linewidth=0)
    axes.plot(steps, lines_RS.mean(0), color=colour, linestyle=style, linewidth=1.8)
    return float(lines_RS[:, -1].mean())


def _common(series: Iterable[tuple[list[int], list[float]]]) -> tuple[list[int], np.ndarray]:
    """The steps common to all runs that logged the measurement, and its values `[R, S]` there."""
    lines = [dict(zip(steps, values, strict=True)) for steps, values in series if steps]
    steps = sorted(set.intersection(*map(set, lines))) if lines else []
    return steps, np.array([[line[step] for step in steps] for line in lines])


def _smooth(values_S: np.ndarray) -> np.ndarray:
    """A centred moving average over about a twentieth of the run."""
    half = len(values_S) // 40
    sums = np.concatenate([[0.0], np.cumsum(values_S)])
    at = np.arange(len(values_S))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values_S))
    return (sums[high] - sums[low]) / (high - low)


def _evaluation_points(axes: Axes, shown: Shown, arm: str, name: str, style: Style) -> float | None:
    """An arm's means on held-out problems: circles during training, a diamond with its interval at the end, a level
    line for the base. Returns the height of the last one.
    """
    mode, colour = headline_mode(shown.rows) or "sampled", shown.colours[arm]
    face = colour if style == SOLID else "none"
    steps, values_RS = _common(run.series(f"eval/{mode}/{name}") for run in shown.runs if run.arm == arm)
    if steps:
        heights_S = 100 * values_RS.mean(0)
        axes.scatter(steps, heights_S, s=22, facecolors=face, edgecolors=colour, linewidths=1.3, zorder=3)
    row = next((row for row in shown.rows if row.arm == arm and row.mode == mode), None)
    if row is None or name not in row.metrics:
        return None
    height, low, high = (100 * end for end in row.metrics[name])
    if is_base(arm):
        axes.axhline(height, color=colour, linestyle=style, linewidth=1, alpha=0.8)
        return height
    step = max(run.final.step for run in shown.runs if run.arm == arm and run.final)
    axes.plot([step, step], [low, high], color=colour, linewidth=2.2, alpha=0.5)
    axes.scatter([step], [height], s=42, marker="D", facecolors=face, edgecolors=colour, linewidths=1.3, zorder=4)
    return height


def _finish(axes: Axes, title: str, ends: list[tuple[float, str, str]]) -> None:
    """Title, room, and the names of the lines at their ends."""
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.locator_params(axis="x", integer=True)
    axes.margins(x=0.02, y=0.08)
    name_ends(axes, ends)


def compute(shown: Shown) -> Figure | None:
    """Votes among K first answers (dashed) against votes among K/2 corrected ones (solid), by attempts sampled.

    Kumar et al. 2024 (arXiv 2409.12917), figure 1, right.
    """
    colours = shown.colours
    rows = [row for row in headline_rows(shown.rows, "sampled") if len(parallel_votes(row)) > 1]
    if not rows:
        return None
    figure, (axes,) = panels(1, height=4)
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


def sequential(shown: Shown) -> Figure | None:
    """Accuracy after n attempts in a row, for conversations of more than two."""
    colours = shown.colours
    curves = {}
    for row in headline_rows(shown.rows, "sampled"):
        if len(numbers := attempts_in(row.metrics)) > 2:
            curves[row.arm] = {number: row.metrics[f"t{number}"] for number in numbers}
    if not curves:
        return None
    figure, (axes,) = panels(1, height=3.6)
    for arm, points in curves.items():
        _draw(axes, points, colours[arm], SOLID)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("attempts in a row")
    axes.set_title("Accuracy after n attempts in a row, %")
    name_ends(axes, [(100 * p[max(p)][0], short_name(arm), colours[arm]) for arm, p in curves.items()])
    return figure


def parallel_votes(row: Row) -> Points:
    """The accuracy of a vote among k first answers, by k."""
    return _votes(row, attempt=1)


def corrected_votes(row: Row) -> Points:
    """The accuracy of a vote among k second answers, by the 2k attempts that they take."""
    return {2 * k: interval for k, interval in _votes(row, attempt=2).items()}


def _votes(row: Row, attempt: int) -> Points:
    found = {}
    for name, interval in row.metrics.items():
        if match := re.fullmatch(rf"maj@(\d+)_t{attempt}", name):
            found[int(match[1])] = interval
    alone = row.metrics.get(f"t{attempt}")
    return dict(sorted(({1: alone} | found if alone else found).items())) if found else {}


def _draw(axes: Axes, points: Points, colour: str, style: Style) -> None:
    heights_N3 = 100 * np.array(list(points.values()))
    axes.fill_between(list(points), heights_N3[:, 1], heights_N3[:, 2], color=colour, alpha=0.1, linewidth=0)
    face = colour if style == SOLID else "none"
    axes.plot(list(points), heights_N3[:, 0], color=colour, linestyle=style, linewidth=1.8)
    axes.scatter(list(points), heights_N3[:, 0], s=24, facecolors=face, edgecolors=colour, linewidths=1.3, zorder=3)


PLOTS: dict[str, Callable[[Shown], Figure | None]] = {
    "accuracy": accuracy,
    "kl": kl,
    "edit_ratio": edit_ratio,
    "compute": compute,
    "sequential": sequential,
}
CURVES = ("compute", "sequential")
"""The plots of accuracy by the number of attempts."""

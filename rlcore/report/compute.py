"""Accuracy against the tokens sampled for a problem, for every way of spending test-time compute.

`rlcore report --compute RUN ...` writes `compute.html` about runs that answer the same problems: evaluations of several
kinds of conversation, and runs of `rlcore adapt`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure

from rlcore.errors import UserError
from rlcore.evaluate.metrics import attempts_in
from rlcore.evaluate.results import Interval
from rlcore.files import to_json, writing
from rlcore.report.render import draw, embedded, render
from rlcore.report.run_folder import RunFolder, read_runs, results_of
from rlcore.report.style import DASHED, PALETTE, SOLID, name_ends, panels, short_name
from rlcore.report.table import Row, headline_rows, result_rows

MODE = "sampled"


@dataclass(frozen=True, slots=True)
class Point:
    """Tokens sampled for a problem, tokens that trained the policy on it before, and the accuracy they buy."""

    tokens: float
    accuracy: Interval
    what: str
    """The name of the figure."""
    trained_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which an arm spends tokens: its points, the cheapest first."""

    arm: str
    name: str
    points: tuple[Point, ...]


def write_compute(folder: Path, runs: Sequence[Path]) -> Path:
    """Writes `compute.html`, its plots and its numbers (`compute.json`) into `folder`; returns the page.

    Raises UserError if a folder is not a run's, no run was evaluated with sampling, or the page cannot be written.
    """
    read = read_runs(map(Path, runs))
    found = ways(read)
    if not found:
        raise UserError("no run was sampled in an evaluation: there is no accuracy to set against tokens")
    page = folder / "compute.html"
    with writing(f"the page in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        pictures = embedded(draw(folder, "compute", lambda: _figure(found)))
        (folder / "compute.json").write_bytes(to_json([asdict(way) for way in found]))
        text = render("compute.html", ways=found, pictures=pictures, same=_same_problems(read))
        page.write_text(text, encoding="utf-8", errors="replace")
    return page


def ways(runs: Sequence[RunFolder]) -> list[Way]:
    """The ways of all arms, each the mean over its runs. A way that arms of one policy share appears once."""
    kinds = {result.arm: run.kind.replace("_", " ") for run in reversed(runs) for result in run.results}
    found: dict[tuple[object, ...], Way] = {}
    for row in headline_rows(result_rows(results_of(runs)), MODE):
        for way in ways_of(row, kinds[row.arm]):
            # Intervals are left out: those of equal marks may differ by a rounding.
            figures = [(point.what, f"{point.tokens:.9g} {point.accuracy[0]:.9g}") for point in way.points]
            found.setdefault((way.name, *figures), way)
    return list(found.values())


def ways_of(row: Row, kind: str) -> list[Way]:
    """The ways of one arm.

    `parallel`: votes among k first answers; the kind of conversation: its attempts in sequence; `both halves`: votes
    among the second answers of k conversations; `test-time training`: the answer that the vote of `rlcore adapt` puts
    first, or `views and votes` if nothing was trained.
    """
    figures, spent = row.metrics, spent_tokens(row)
    votes = sorted((int(m[1]), int(m[2]), name) for name in figures if (m := re.fullmatch(r"maj@(\d+)_t(\d+)", name)))
    in_a_row = [(1, a, f"t{a}") for a in spent] if len(spent) > 1 or not votes else []
    found = {"parallel": [(1, 1, "t1")] if votes else [], kind: in_a_row, "both halves": []}
    found["parallel"] += [vote for vote in votes if vote[1] == 1]
    found["both halves"] += [vote for vote in votes if vote[1] == 2]
    if "top1" in figures:
        trained = figures["trained_tokens"][0]
        name = "test-time training" if trained else "views and votes"
        return [Way(row.arm, name, (Point(figures["sampled_tokens"][0], figures["top1"], "top1", trained),))]
    lists = {name: [Point(k * spent[a], figures[what], what) for k, a, what in each] for name, each in found.items()}
    return [Way(row.arm, name, tuple(points)) for name, points in lists.items() if points]


def spent_tokens(row: Row) -> dict[int, float]:
    """Mean tokens sampled in a conversation up to each attempt, included: `spent_tA`, or the sum of `tokens_tA`."""
    spent, total = {}, 0.0
    for a in attempts_in(row.metrics):
        total += row.metrics.get(f"tokens_t{a}", (math.nan,))[0]
        spent[a] = row.metrics[f"spent_t{a}"][0] if f"spent_t{a}" in row.metrics else total
    return spent


def _figure(found: Sequence[Way]) -> Figure:
    figure, (axes,) = panels(1, height=5)
    ends = []
    for number, way in enumerate(found):
        colour = PALETTE[number % len(PALETTE)]
        tokens_N = [point.tokens for point in way.points]
        value_N, low_N, high_N = ([100 * point.accuracy[end] for point in way.points] for end in range(3))
        axes.vlines(tokens_N, low_N, high_N, color=colour, alpha=0.4, linewidth=2)
        stroke, marker = (SOLID, "o") if number < len(PALETTE) else (DASHED, "D")
        axes.plot(tokens_N, value_N, color=colour, linestyle=stroke, marker=marker, markersize=5, linewidth=1.8)
        ends.append((value_N[-1], f"{short_name(way.arm)}: {way.name}", colour))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("tokens sampled for a problem")
    axes.set_title("Accuracy, %, and its 95 % interval")
    name_ends(axes, ends)
    return figure


def _same_problems(runs: Sequence[RunFolder]) -> bool:
    """Whether all evaluations have the same problems."""
    evaluations = [e for result in results_of(runs) for e in result.evaluations if e.mode == MODE]
    problems = [{name for marks in evaluation.marks.values() for name in marks} for evaluation in evaluations]
    return all(each == problems[0] for each in problems)

"""The result table for console and Markdown: a row for each arm and mode of sampling, in points with 95 % intervals."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from rlcore.evaluate.bootstrap import seeds_ci
from rlcore.evaluate.metrics import attempts_in
from rlcore.evaluate.results import Evaluation, Interval, Results

BASE_ARM = "base"
"""The arm that the others start from; it comes first."""
LABELS = {
    "delta": "Δ",
    "i_to_c": "i→c",
    "c_to_i": "c→i",
    "answer_change": "answer change",
    "gate_right": "gate right",
    "top1": "top 1",
    "top2": "top 2",
}
SIGNED = {"delta"}
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one run, or the mean or difference over all runs of an arm; `run` says which."""

    mode: str
    arm: str
    run: str
    metrics: Mapping[str, Interval]

    @property
    def is_mean(self) -> bool:
        """Whether the figures are means over several runs."""
        return self.run.startswith("mean")

    @property
    def is_difference(self) -> bool:
        """Whether the figures are the arm's minus those of another."""
        return self.run.startswith("minus")


def result_rows(results: Sequence[Results]) -> list[Row]:
    """Rows by mode and arm, the base first; an arm with several runs has its mean before the rows of its seeds.

    The interval of a run is over problems, that of a mean over problems and seeds (`seeds_ci`).
    """
    rows = []
    for mode in _modes(results):
        for arm in arms_of(results):
            runs = _runs(results, mode, arm)
            if len(runs) > 1:
                rows.append(Row(mode, arm, f"mean of {len(runs)}", _over_seeds([run for _, run in runs])))
            rows += [Row(mode, arm, f"seed {seed}", run.metrics) for seed, run in runs]
    return rows


def difference_rows(results: Sequence[Results], against: str) -> list[Row]:
    """Differences of all other arms from `against`, by mode: paired by problem, over all seeds of both.

    Where arms start from several policies (`base_arm`), each is compared with its own base.
    """
    arms, rows = arms_of(results), []
    for mode in _modes(results):
        for arm in arms:
            runs = [run for _, run in _runs(results, mode, arm)]
            others = [run for _, run in _runs(results, mode, against if against in arms else base_arm(arm))]
            if arm != against and runs and others:
                rows.append(Row(mode, arm, f"minus {against}", _over_seeds(runs, others)))
    return rows


def coverage_note(results: Sequence[Results]) -> str:
    """A sentence that says what the intervals of these results cover."""
    seeds = max((len({r.seed for r in results if r.arm == arm}) for arm in arms_of(results)), default=0)
    if seeds < 2:
        return "Intervals (95 %) are over problems alone: how much another seed would change, one run cannot say."
    note = "Intervals (95 %) of a seed are over problems alone, those of means and differences over problems and seeds."
    arms = (_runs(results, mode, arm) for mode in _modes(results) for arm in arms_of(results))
    asked = [[_problems(run) for _, run in runs if run.marks] for runs in arms]
    if any(each != problems[0] for problems in asked for each in problems):
        note += " A mean is over the problems that all runs of its arm have: some have others too."
    return note


def headline_mode(rows: Sequence[Row]) -> str:
    """The mode that headlines and plots show: sampled as in training, if there is such an evaluation."""
    modes = [row.mode for row in rows]
    return "sampled" if "sampled" in modes else next(iter(modes), "")


def headline_rows(rows: Sequence[Row], mode: str) -> list[Row]:
    """One row for each arm: the mean if it has several runs."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.mode == mode:
            first.setdefault(row.arm, row)
    return list(first.values())


def arms_of(results: Sequence[Results]) -> list[str]:
    """The arms in the order shown: the base, then as given."""
    names = dict.fromkeys(result.arm for result in results)
    return sorted(names, key=lambda arm: not is_base(arm))


def base_arm(name: str) -> str:
    """The arm of one base of several: in conversations of a kind, or of the policy that an arm starts from."""
    return f"{BASE_ARM}, {name}"


def is_base(arm: str) -> bool:
    """Whether an arm is what others start from."""
    return arm == BASE_ARM or arm.startswith(base_arm(""))


def _modes(results: Sequence[Results]) -> list[str]:
    return list(dict.fromkeys(evaluation.mode for result in results for evaluation in result.evaluations))


def _runs(results: Sequence[Results], mode: str, arm: str) -> list[tuple[int, Evaluation]]:
    """Seed and evaluation of each run.

    The folders of all runs hold the base; of those only evaluations with different marks count, as greedy answers of
    the base are the same under every seed.
    """
    runs: list[tuple[int, Evaluation]] = []
    for result in (result for result in results if result.arm == arm):
        for evaluation in (evaluation for evaluation in result.evaluations if evaluation.mode == mode):
            measured = "marks" if evaluation.marks else "metrics"
            same = [seed for seed, run in runs if getattr(run, measured) == getattr(evaluation, measured)]
            if not same or (not is_base(arm) and result.seed not in same):
                runs.append((result.seed, evaluation))
    return runs


def _problems(run: Evaluation) -> set[str]:
    return {problem for marks in run.marks.values() for problem in marks}


def _over_seeds(runs: Sequence[Evaluation], against: Sequence[Evaluation] = ()) -> dict[str, Interval]:
    """`seeds_ci` of the measurements and problems that all runs have in common."""
    everyone = [*runs, *against]
    names = [name for name in runs[0].metrics if all(name in run.marks for run in everyone)]
    problems = sorted(set.intersection(*map(_problems, everyone)))
    if not names or not problems:
        return {}
    arms = [
        np.array([[[run.marks[name].get(p, math.nan) for name in names] for p in problems] for run in arm])
        for arm in (runs, against)
        if arm
    ]
    return {name: (v, low, high) for name, (v, low, high) in zip(names, seeds_ci(*arms).tolist(), strict=True)}


def vote_table(rows: Sequence[Row]) -> tuple[list[str], list[tuple[Row, str, list[str]]]]:
    """pass@k and maj@k: the values of k, and a line of cells for each arm, measurement and attempt."""
    names = {name for row in rows for name in row.metrics if re.fullmatch(r"(pass|maj)@\d+_t\d+", name)}
    ks = sorted({int(name.split("@")[1].split("_")[0]) for name in names})
    ways = sorted({re.sub(r"@\d+", "", name) for name in names})
    lines = []
    for row in rows:
        for way in ways:
            kind, attempt = way.split("_")
            cells = [cell(row, f"{kind}@{k}_{attempt}") for k in ks]
            if any(text != NOTHING for text in cells):
                lines.append((row, f"{kind}@k, {attempt}", [cell(row, attempt), *cells]))
    return [str(k) for k in (1, *ks)] if ks else [], lines


def part_rows(results: Sequence[Results], mode: str) -> dict[str, list[tuple[str, int, Row]]]:
    """By part (level, subject): each value with its number of problems and each arm's figures, over its seeds."""
    found: dict[str, list[tuple[str, int, Row]]] = {}
    for arm in arms_of(results):
        evaluations = [evaluation for _, evaluation in _runs(results, mode, arm)]
        for part in dict.fromkeys(part for evaluation in evaluations for part in evaluation.parts):
            values = [evaluation.parts.get(part, {}) for evaluation in evaluations]
            for value in dict.fromkeys(value for of in values for value in of):
                same = [of[value] for of in values if value in of]
                metrics = _over_seeds(same) if len(same) > 1 else same[0].metrics
                problems = max(evaluation.problems for evaluation in same)
                found.setdefault(part, []).append((value, problems, Row(mode, arm, "", metrics)))
    return {part: sorted(rows, key=lambda row: row[0]) for part, rows in found.items()}


def columns_of(rows: Sequence[Row]) -> dict[str, str]:
    """Names and labels of the metrics in the table: t1 .. tA, Δ, the flips and the answer changes."""
    names = {name for row in rows for name in row.metrics}
    accuracies = [f"t{attempt}" for attempt in attempts_in(names)]
    return {name: LABELS.get(name, name) for name in (*accuracies, *LABELS) if name in names}


def cell(row: Row, name: str) -> str:
    """A figure in points with half the width of its interval: `52.4 ± 1.1`; a dash if there is none."""
    value, low, high = row.metrics.get(name, (math.nan,) * 3)
    if math.isnan(value):
        return NOTHING
    signed = "+" if name in SIGNED or row.is_difference else ""
    return f"{100 * value:{signed}.1f} ± {50 * (high - low):.1f}"


def console_table(rows: Sequence[Row]) -> Table:
    """The table for a rich console."""
    columns = columns_of(rows)
    table = Table(box=box.SIMPLE_HEAD, title="points ± 95 % interval", title_justify="left")
    for heading in ("sampling", "arm", "run"):
        table.add_column(heading, no_wrap=True)
    for label in columns.values():
        table.add_column(label.replace(" ", "\n"), justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.mode != row.mode:
            table.add_section()
        style = "bold" if row.is_mean else None
        table.add_row(row.mode, escape(row.arm), row.run, *(cell(row, name) for name in columns), style=style)
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The table as Markdown; means are bold."""
    columns = columns_of(rows)
    lines = [["sampling", "arm", "run", *columns.values()], ["---"] * 3 + ["---:"] * len(columns)]
    for row in rows:
        cells = [row.mode, row.arm.replace("|", r"\|"), row.run, *(cell(row, name) for name in columns)]
        lines.append([f"**{text}**" for text in cells] if row.is_mean else cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

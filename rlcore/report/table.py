"""The result table: a row for each arm and way of sampling, in points with 95 % intervals, for console and Markdown."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from rlcore.evaluate.results import Interval, Results

BASE = "base"
"""The arm that the others start from; it comes first."""
LABELS = {"delta": "Δ", "i_to_c": "i→c", "c_to_i": "c→i", "answer_change": "answer change"}
SIGNED = {"delta"}
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one run, or the mean of all runs of an arm (`run` says which)."""

    mode: str
    arm: str
    run: str
    metrics: Mapping[str, Interval]

    @property
    def is_mean(self) -> bool:
        """Whether several runs stand behind the figures."""
        return self.run.startswith("mean")


def result_rows(results: Sequence[Results]) -> list[Row]:
    """Rows by mode and arm, the base first; an arm with several runs has its mean before the rows of its seeds.

    The interval of a mean is the mean of the seeds' intervals. They come from the same problems, so that averaging over
    seeds does not narrow them; how far seeds differ is seen in their own rows.
    """
    rows = []
    for mode in dict.fromkeys(evaluation.mode for result in results for evaluation in result.evaluations):
        for arm in arms_of(results):
            runs = _runs(results, mode, arm)
            if len(runs) > 1:
                rows.append(Row(mode, arm, f"mean of {len(runs)}", _mean([run.metrics for run in runs])))
            rows += runs
    return rows


def headline_mode(rows: Sequence[Row]) -> str:
    """The way of sampling that headlines and plots show: as in training where there is such an evaluation."""
    modes = [row.mode for row in rows]
    return "sampled" if "sampled" in modes else next(iter(modes), "")


def arms_of(results: Sequence[Results]) -> list[str]:
    """The arms in the order they are shown: the base, then as given."""
    names = dict.fromkeys(result.arm for result in results)
    return sorted(names, key=lambda arm: arm != BASE)


def _runs(results: Sequence[Results], mode: str, arm: str) -> list[Row]:
    """One row a run. The base is measured in the runs of several arms: equal rows are one."""
    rows: list[Row] = []
    for result in (result for result in results if result.arm == arm):
        for evaluation in (evaluation for evaluation in result.evaluations if evaluation.mode == mode):
            row = Row(mode, arm, f"seed {result.seed}", evaluation.metrics)
            if row not in rows:
                rows.append(row)
    return rows


def _mean(runs: Sequence[Mapping[str, Interval]]) -> dict[str, Interval]:
    names = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: tuple(np.mean([run[name] for run in runs], axis=0).tolist()) for name in names}


def vote_table(rows: Sequence[Row]) -> tuple[list[str], list[tuple[Row, str, list[str]]]]:
    """pass@k and maj@k: the ks, and a line for each arm, way of counting and attempt, with its cells."""
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
    """By part (level, subject): its values with their problems and each arm's figures, means where there are seeds."""
    found: dict[str, list[tuple[str, int, Row]]] = {}
    for arm in arms_of(results):
        evaluations = [e for result in results if result.arm == arm for e in result.evaluations if e.mode == mode]
        for part, values in evaluations[0].parts.items() if evaluations else ():
            for value, evaluation in values.items():
                same = [e.parts[part][value].metrics for e in evaluations if value in e.parts.get(part, {})]
                found.setdefault(part, []).append((value, evaluation.problems, Row(mode, arm, "", _mean(same))))
    return {part: sorted(rows, key=lambda row: row[0]) for part, rows in found.items()}


def columns_of(rows: Sequence[Row]) -> dict[str, str]:
    """Names of the metrics that the table shows, and their labels: t1 .. tA, Δ, the flips and the answer changes."""
    names = {name for row in rows for name in row.metrics}
    accuracies = sorted((name for name in names if re.fullmatch(r"t\d+", name)), key=lambda name: int(name[1:]))
    return {name: LABELS.get(name, name) for name in (*accuracies, *LABELS) if name in names}


def cell(row: Row, name: str) -> str:
    """A figure in points with half the width of its interval: `52.4 ± 1.1`; a dash where there is none."""
    value, low, high = row.metrics.get(name, (math.nan,) * 3)
    if math.isnan(value):
        return NOTHING
    return f"{100 * value:{'+' if name in SIGNED else ''}.1f} ± {50 * (high - low):.1f}"


def console_table(results: Sequence[Results]) -> Table:
    """The table for a rich console."""
    rows = result_rows(results)
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


def markdown_table(results: Sequence[Results]) -> str:
    """The table as Markdown; means are bold."""
    rows = result_rows(results)
    columns = columns_of(rows)
    lines = [
        ["sampling", "arm", "run", *columns.values()],
        ["---"] * 3 + ["---:"] * len(columns),
        *(
            _bold(row, [row.mode, row.arm.replace("|", r"\|"), row.run, *(cell(row, n) for n in columns)])
            for row in rows
        ),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bold(row: Row, cells: list[str]) -> list[str]:
    return [f"**{text}**" for text in cells] if row.is_mean else cells

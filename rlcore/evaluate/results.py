"""The results of an evaluation, figures with intervals, and their file `evaluation.json`."""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.errors import UserError
from rlcore.evaluate.bootstrap import bootstrap_ci, problem_means
from rlcore.evaluate.lines import ResultsLine
from rlcore.files import check_shape, to_json, write_whole

Interval = tuple[float, float, float]
"""Value, low and high end of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one policy on held-out problems under one way of sampling ("greedy" or "sampled")."""

    mode: str
    problems: int
    metrics: Mapping[str, Interval]
    parts: Mapping[str, Mapping[str, "Evaluation"]] = field(default_factory=dict)
    """The same for the problems of each level, subject and the like: `parts["level"]["5"]`."""
    marks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By measurement and problem: the mean over the problem's conversations, if any. Intervals over seeds and of
    differences between arms are computed from these."""

    @classmethod
    def of_rows(
        cls, mode: str, problems_N: Sequence[Hashable], rows: Mapping[str, np.ndarray], *, seed: int = 0
    ) -> "Evaluation":
        """Means and intervals of measurements `[N]` on N rows; `problems_N` names the problem of each row."""
        if not len(problems_N):
            raise UserError(f"{mode} evaluation: there are no problems to evaluate on")
        marks = _marks(problems_N, rows)
        return cls(mode, len(set(problems_N)), _intervals(problems_N, rows, seed), marks=marks)

    def with_rows(
        self, problems_N: Sequence[Hashable], rows: Mapping[str, np.ndarray], *, seed: int = 0
    ) -> "Evaluation":
        """This evaluation with further measurements."""
        if not rows:
            return self
        metrics = {**self.metrics, **_intervals(problems_N, rows, seed)}
        return replace(self, metrics=metrics, marks={**self.marks, **_marks(problems_N, rows)})

    def with_parts(
        self, problems_N: Sequence[Hashable], rows: Mapping[str, np.ndarray], parts_N: Sequence[Mapping[str, str]]
    ) -> "Evaluation":
        """This evaluation with figures of each part that has two values or more; `parts_N` are those of each row."""
        names_N, found = np.array(problems_N, dtype=object), dict[str, dict[str, Evaluation]]()
        for part in dict.fromkeys(part for parts in parts_N for part in parts):
            value_N = np.array([parts.get(part) for parts in parts_N], dtype=object)
            values = sorted({value for value in value_N if value is not None})
            masks = {value: value_N == value for value in values} if len(values) > 1 else {}
            for value, mine_N in masks.items():
                own = {name: values_N[mine_N] for name, values_N in rows.items()}
                only = Evaluation.of_rows(self.mode, names_N[mine_N].tolist(), own)
                found.setdefault(part, {})[value] = only
        return replace(self, parts=found)

    @property
    def values(self) -> dict[str, float]:
        """The figures without intervals, by their names in `metrics.jsonl`: `eval/MODE/NAME`."""
        return {f"eval/{self.mode}/{name}": value for name, (value, _, _) in self.metrics.items()}


@dataclass(frozen=True, slots=True)
class Results:
    """The content of `evaluation.json`: evaluations of one arm with one seed at one step, and example conversations.

    A histogram is `{"edges": [K + 1 numbers], "counts": [K integers]}`; an example is a record of `trajectories.jsonl`.
    """

    arm: str
    seed: int
    step: int
    evaluations: tuple[Evaluation, ...]
    histograms: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    """Plain sentences on what could not be measured."""


def histogram(values_N: np.ndarray, bins: int = 40) -> dict[str, list[float]]:
    """Counts of the values in `bins` equal parts of [0, 1], in the form of `Results.histograms`. NaN is ignored."""
    counts, edges = np.histogram(values_N[~np.isnan(values_N)], bins=bins, range=(0.0, 1.0))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def save_evaluation(path: Path, results: Results) -> None:
    """Writes `evaluation.json` atomically. Raises UserError where it cannot be written."""
    evaluations = [_saved(evaluation) for evaluation in results.evaluations]
    write_whole(path, to_json(asdict(replace(results, evaluations=())) | {"evaluations": evaluations}))


def load_evaluation(path: Path) -> Results:
    """Reads what `save_evaluation` wrote. Raises UserError if the file is missing or something else."""
    try:
        saved = json.loads(path.read_bytes())
        check_shape(saved, ResultsLine, f"{path} is not an evaluation file")
        return Results(**saved | {"evaluations": tuple(map(_evaluation, saved["evaluations"]))})
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not an evaluation file: {error}") from None


def _intervals(problems_N: Sequence[Hashable], rows: Mapping[str, np.ndarray], seed: int) -> dict[str, Interval]:
    intervals_M3 = bootstrap_ci(np.stack(list(rows.values()), axis=1), problems_N, seed=seed)
    return {name: (float(v), float(lo), float(hi)) for name, (v, lo, hi) in zip(rows, intervals_M3, strict=True)}


def _marks(problems_N: Sequence[Hashable], rows: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """The mean of each problem, rounded to the precision of the file."""
    names, means_PM = problem_means(np.stack(list(rows.values()), axis=1), problems_N)
    columns = zip(rows, means_PM.T.round(4).tolist(), strict=True)
    return {row: {n: m for n, m in zip(names, marks, strict=True) if not math.isnan(m)} for row, marks in columns}


def _saved(evaluation: Evaluation) -> dict[str, Any]:
    """The form in JSON: problems are named once, followed by a mark or null for each of them."""
    problems = sorted({name for marks in evaluation.marks.values() for name in marks})
    columns = {row: [_short(marks.get(name)) for name in problems] for row, marks in evaluation.marks.items()}
    parts = {part: {name: _saved(e) for name, e in of.items()} for part, of in evaluation.parts.items()}
    bare = asdict(replace(evaluation, parts={}, marks={}))
    return bare | {"parts": parts, "marks": {"problems": problems, "columns": columns}}


def _short(mark: float | None) -> float | int | None:
    """1.0 as 1: most marks are 0 or 1."""
    return int(mark) if mark is not None and mark == int(mark) else mark


def _evaluation(saved: Mapping[str, Any]) -> Evaluation:
    metrics = {name: _interval(values) for name, values in saved["metrics"].items()}
    parts = {part: {name: _evaluation(e) for name, e in of.items()} for part, of in saved["parts"].items()}
    marks = saved.get("marks") or {"problems": [], "columns": {}}
    problems = marks["problems"]
    columns = {
        row: {name: float(mark) for name, mark in zip(problems, column, strict=True) if mark is not None}
        for row, column in marks["columns"].items()
    }
    return Evaluation(saved["mode"], int(saved["problems"]), metrics, parts, columns)


def _interval(values: Sequence[float | None]) -> Interval:
    value, low, high = (math.nan if v is None else float(v) for v in values)
    return value, low, high

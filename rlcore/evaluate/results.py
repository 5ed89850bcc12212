"""The result of an evaluation: figures with their intervals, and the file `evaluation.json` that holds them."""

import json
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.evaluate.bootstrap import bootstrap_ci
from rlcore.evaluate.records import to_json
from rlcore.types import UserError

Interval = tuple[float, float, float]
"""Value, low and high end of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one policy on held-out problems under one way of sampling ("greedy" or "sampled")."""

    mode: str
    problems: int
    metrics: Mapping[str, Interval]

    @classmethod
    def of_rows(
        cls, mode: str, problems_N: Sequence[Hashable], rows: Mapping[str, np.ndarray], *, seed: int = 0
    ) -> "Evaluation":
        """Means with intervals of measurements `[N]` on N rows; `problems_N` names the problem of each row."""
        if not len(problems_N):
            raise UserError(f"{mode} evaluation: there are no problems to evaluate on")
        intervals_M3 = bootstrap_ci(np.stack(list(rows.values()), axis=1), problems_N, seed=seed)
        metrics = {name: (float(v), float(lo), float(hi)) for name, (v, lo, hi) in zip(rows, intervals_M3, strict=True)}
        return cls(mode, len(set(problems_N)), metrics)

    @property
    def values(self) -> dict[str, float]:
        """The figures without their intervals, by the names that `metrics.jsonl` gives them: `eval/MODE/NAME`."""
        return {f"eval/{self.mode}/{name}": value for name, (value, _, _) in self.metrics.items()}


@dataclass(frozen=True, slots=True)
class Results:
    """What `evaluation.json` holds: the evaluations of one arm with one seed at one step, and examples to look at.

    A histogram is `{"edges": [K + 1 numbers], "counts": [K integers]}`; an example is a record of `trajectories.jsonl`.
    """

    arm: str
    seed: int
    step: int
    evaluations: tuple[Evaluation, ...]
    histograms: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()


def histogram(values_N: np.ndarray, bins: int = 40, span: tuple[float, float] = (0.0, 1.0)) -> dict[str, list[float]]:
    """Counts of the values in `bins` equal parts of `span`, as `Results.histograms` holds them. NaN is left out."""
    counts, edges = np.histogram(values_N[~np.isnan(values_N)], bins=bins, range=span)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def save_evaluation(path: Path, results: Results) -> None:
    """Write `evaluation.json` whole or not at all. Raises UserError where it cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(to_json(asdict(results)))
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def load_evaluation(path: Path) -> Results:
    """Read what `save_evaluation` wrote. Raises UserError where the file is missing or is something else."""
    try:
        saved = json.loads(path.read_bytes())
        evaluations = tuple(
            Evaluation(e["mode"], int(e["problems"]), {name: _interval(v) for name, v in e["metrics"].items()})
            for e in saved["evaluations"]
        )
        arm, seed, step = str(saved["arm"]), int(saved["seed"]), int(saved["step"])
        return Results(arm, seed, step, evaluations, saved["histograms"], saved["examples"])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not an evaluation file: {type(error).__name__}: {error}") from None


def _interval(values: Sequence[float | None]) -> Interval:
    value, low, high = (math.nan if v is None else float(v) for v in values)
    return value, low, high

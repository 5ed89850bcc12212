"""Shapes of the records in a run's files: what they must hold to be read back. Other keys are let through."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rlcore.files import Line, StepLine

Figure = float | None
"""None stands for what is not finite."""


class MetricsLine(StepLine):
    """Of metrics.jsonl: the figures of a step."""

    stage: str
    __pydantic_extra__: dict[str, Figure]


class _Message(Line):
    role: str
    content: str


class _ShownAttempt(Line):
    text: str
    status: str


class _ShownReply(Line):
    text: str


class ShownLine(StepLine):
    """Of trajectories.jsonl, and the examples of an evaluation: what is looked at (see `trajectory_record`)."""

    stage: str
    problem_id: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    attempts: Annotated[Sequence[_ShownAttempt], Field(min_length=1)]
    between: Sequence[_ShownReply]
    flip: str | None


class _Attempt(_ShownAttempt):
    score: Figure
    answer: str | None
    finish: str
    tokens: int


class _Reply(_ShownReply):
    after: Annotated[int, Field(ge=1)]
    role: str
    claim: bool | None


class TrajectoryLine(ShownLine):
    """Of attempts-RANK.jsonl: what is measured too (see `record_rows`)."""

    attempts: Annotated[Sequence[_Attempt], Field(min_length=1)]
    between: Sequence[_Reply]
    parts: dict[str, str]
    edit_ratio: Figure


class _Marks(Line):
    """Marks of an evaluation: a column, by measurement, of one for each problem."""

    problems: list[str]
    columns: dict[str, list[Figure]]


class _Evaluation(Line):
    """Figures under one way of sampling: value, low and high end."""

    mode: str
    problems: int
    metrics: dict[str, Annotated[list[Figure], Field(min_length=3, max_length=3)]]
    parts: "dict[str, dict[str, _Evaluation]]"
    marks: _Marks | None = None


class ResultsLine(Line):
    """Of evaluation.json."""

    arm: str
    seed: int
    step: int
    evaluations: list[_Evaluation]
    histograms: dict[str, dict[str, list[float]]]
    examples: list[ShownLine]
    notes: list[str]

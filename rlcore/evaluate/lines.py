"""The shapes of records in a run's files. Further keys are allowed."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rlcore.files import Line, StepLine

Figure = float | None
"""None means that the number was not finite."""


class MetricsLine(StepLine):
    """A line of metrics.jsonl: the figures of a step."""

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
    """A line of trajectories.jsonl, or an example of an evaluation: what reports show (see `trajectory_record`)."""

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
    tokens: int


class TrajectoryLine(ShownLine):
    """A line of attempts-RANK.jsonl: also what is measured (see `record_rows`)."""

    attempts: Annotated[Sequence[_Attempt], Field(min_length=1)]
    between: Sequence[_Reply]
    parts: dict[str, str]
    edit_ratio: Figure


class _Marks(Line):
    """Marks of an evaluation: by measurement, one for each problem."""

    problems: list[str]
    columns: dict[str, list[Figure]]


class _Evaluation(Line):
    """Figures under one way of sampling: value, low and high end of each."""

    mode: str
    problems: int
    metrics: dict[str, Annotated[list[Figure], Field(min_length=3, max_length=3)]]
    parts: "dict[str, dict[str, _Evaluation]]"
    marks: _Marks | None = None


class ResultsLine(Line):
    """evaluation.json."""

    arm: str
    seed: int
    step: int
    evaluations: list[_Evaluation]
    histograms: dict[str, dict[str, list[float]]]
    examples: list[ShownLine]
    notes: list[str]

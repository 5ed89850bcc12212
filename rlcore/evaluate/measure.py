"""Trajectories as records, which runs store, and records as rows, which figures and intervals are computed from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlcore.entries import KINDS
from rlcore.evaluate.metrics import answer_change, correction_rows, edit_ratio, flip_kind
from rlcore.files import Record
from rlcore.recipe.schema import ConversationConfig
from rlcore.types import Trajectory

PARTS = {"level": ("level",), "subject": ("subject", "type")}
"""Parts that results are also reported by, and the columns that may hold them (in MATH and MATH-500)."""


def trajectory_record(trajectory: Trajectory, *, step: int, stage: str) -> Record:
    """The record of one scored trajectory in `trajectories.jsonl` and `attempts.jsonl`.

    It holds texts, verdicts and lengths of the attempts, the replies between them, the flip from the first to the last
    attempt, and the edit ratio of the two.
    """
    marks_A = trajectory.marks_A
    between = [
        {
            "after": sum(t.role == "attempt" for t in trajectory.turns[:at]),
            "role": turn.role,
            "text": turn.text,
            "claim": turn.claim,
            "tokens": turn.tokens,
        }
        for at, turn in enumerate(trajectory.turns)
        if turn.role != "attempt"
    ]
    return {
        "step": step,
        "stage": stage,
        "problem_id": trajectory.problem.id,
        "messages": [dict(message) for message in trajectory.problem.messages],
        "parts": _parts(trajectory.problem.columns),
        "attempts": [
            {
                "text": turn.text,
                "score": verdict.score,
                "status": verdict.status,
                "answer": verdict.answer,
                "finish": turn.finish,
                "tokens": turn.tokens,
            }
            for turn, verdict in zip(trajectory.attempts, trajectory.verdicts, strict=True)
        ],
        "between": between,
        "flip": flip_kind(marks_A[0], marks_A[-1]),
        "edit_ratio": _edit_ratio(trajectory) if len(marks_A) > 1 else None,
    }


def _parts(columns: Any) -> dict[str, str]:
    found = {
        part: next((columns[n] for n in names if columns.get(n) is not None), None) for part, names in PARTS.items()
    }
    return {part: str(value) for part, value in found.items() if value is not None}


def _edit_ratio(trajectory: Trajectory) -> float:
    """Of the first and the last attempt, on token ids, or on words where there is only text."""
    first, last = trajectory.attempts[0], trajectory.attempts[-1]
    if first.response_ids or last.response_ids:
        return float(edit_ratio([first.response_ids], [last.response_ids])[0])
    return float(edit_ratio([first.text.split()], [last.text.split()])[0])


def trajectory_rows(trajectories: Sequence[Trajectory], section: ConversationConfig) -> dict[str, np.ndarray]:
    """`record_rows` of N trajectories."""
    return record_rows([trajectory_record(trajectory, step=0, stage="") for trajectory in trajectories], section)


def record_rows(records: Sequence[Record], section: ConversationConfig) -> dict[str, np.ndarray]:
    """Every measurement of N records of one kind of conversation, `[N]` each (see `evaluate.metrics`).

    Beside accuracy and flips: answer_change, edit_ratio (first against last attempt), truncated_tA (1 where attempt A
    was cut at the length limit) and tokens_tA; attempts, where conversations may end early; verdict_right, where the
    policy judges its attempts. A missing attempt has no length, and counts with the answer before it.
    """
    attempts = section.attempts
    marks = [standing([mark(attempt) for attempt in record["attempts"]], attempts) for record in records]
    rows = correction_rows(np.array(marks, dtype=np.float64))
    if attempts > 1:
        rows["answer_change"] = answer_change(
            [standing([_answer(a) for a in r["attempts"]], attempts) for r in records]
        )
        rows["edit_ratio"] = np.array([record["edit_ratio"] for record in records], dtype=np.float64)
    for a in range(attempts):
        told = [r["attempts"][a] if a < len(r["attempts"]) else None for r in records]
        rows[f"truncated_t{a + 1}"] = np.array([float(t["finish"] == "length") if t else np.nan for t in told])
        rows[f"tokens_t{a + 1}"] = np.array([t["tokens"] if t else np.nan for t in told], dtype=np.float64)
    kind = KINDS[section.kind]
    if kind.between or kind.may_end:
        spent_NA = np.array([_spent(record, attempts) for record in records], dtype=np.float64)
        rows |= {f"spent_t{a + 1}": spent_NA[:, a] for a in range(attempts)}
    if kind.may_end:
        rows["attempts"] = np.array([len(record["attempts"]) for record in records], dtype=np.float64)
        if attempts > 1:
            rows["gate_right"] = np.array([_gate_right(record) for record in records])
    if kind.judges:
        rows["verdict_right"] = np.array([_verdicts_right(record) for record in records])
    return rows


def _spent(record: Record, attempts: int) -> list[float]:
    """Tokens sampled of a conversation up to and with each attempt, what was said between them included."""
    said_A = [0.0] * (len(record["attempts"]) + 1)
    for said in record["between"]:
        said_A[said["after"]] += said["tokens"]
    spent, total = [], 0.0
    for attempt, before in zip(record["attempts"], said_A, strict=False):
        total += before + attempt["tokens"]
        spent.append(total)
    return [*spent, *[total + said_A[-1]] * (attempts - len(spent))]


def _gate_right(record: Record) -> float:
    """Whether a conversation went on after its first attempt just where that was wrong; NaN where it has no score."""
    first = mark(record["attempts"][0])
    return first if np.isnan(first) else float((len(record["attempts"]) > 1) == (first == 0))


def mark(attempt: Record) -> float:
    """1 for a correct attempt, else 0; NaN where it was not scored (see `Trajectory.marks_A`)."""
    return float("nan") if attempt["score"] is None else float(attempt["status"] == "correct")


def standing(values: Sequence[Any], attempts: int) -> list[Any]:
    """`values` extended to one for each attempt by repeating the last."""
    return [*values, *[values[-1]] * (attempts - len(values))]


def _answer(attempt: Record) -> str:
    """The answer of an attempt: the one its reward extracted, else its whole text without spaces and case."""
    return attempt["answer"] if attempt["answer"] is not None else "".join(attempt["text"].split()).casefold()


def _verdicts_right(record: Record) -> float:
    """The fraction of the policy's verdicts on its own attempts that agree with the scores; NaN without any."""
    agreed = []
    for said in record["between"]:
        judged = mark(record["attempts"][said["after"] - 1])
        if said["role"] == "verdict" and not np.isnan(judged):
            agreed.append(said["claim"] is bool(judged))
    return float(np.mean(agreed)) if agreed else float("nan")

"""From trajectories to the rows that metrics, intervals and records are made of."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlcore.evaluate.metrics import answer_change, correction_rows, edit_ratio, flip_kind
from rlcore.recipe.schema import STOPPING, Conversation
from rlcore.types import Trajectory

_STATED = re.compile(r"\\boxed\s*\{(?P<boxed>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}|####(?P<hashes>[^\n]*)")


def trajectory_rows(trajectories: Sequence[Trajectory], section: Conversation) -> dict[str, np.ndarray]:
    """Every measurement of N scored trajectories of one kind of conversation, `[N]` each (see `evaluate.metrics`).

    Beside accuracy and flips: answer_change, edit_ratio (on token ids, first against last attempt), and of each attempt
    truncated_tA (share that met the length limit) and tokens_tA. Where conversations may end early, attempts; where the
    policy judges its attempts, verdict_right. An attempt that a conversation lacks has no length there, and the answer
    before it stands.
    """
    attempts = section.attempts
    rows = correction_rows(_standing([trajectory.marks_A for trajectory in trajectories], attempts))
    if attempts > 1:
        rows["answer_change"] = answer_change([_standing_answers(t, attempts) for t in trajectories])
        rows["edit_ratio"] = edit_ratio(
            [t.attempts[0].response_ids for t in trajectories], [t.attempts[-1].response_ids for t in trajectories]
        )
    for a in range(attempts):
        turns = [t.attempts[a] if a < len(t.attempts) else None for t in trajectories]
        rows[f"truncated_t{a + 1}"] = np.array([float(turn.finish == "length") if turn else np.nan for turn in turns])
        rows[f"tokens_t{a + 1}"] = np.array([len(turn.response_ids) if turn else np.nan for turn in turns])
    if section.kind in STOPPING:
        rows["attempts"] = np.array([len(t.attempts) for t in trajectories], dtype=np.float64)
    if section.kind == "verify":
        rows["verdict_right"] = np.array([_verdicts_right(t) for t in trajectories])
    return rows


def standing_rewards(trajectories: Sequence[Trajectory], attempts: int) -> np.ndarray:
    """Scores after each of `attempts` attempts, `[N, A]`: where a conversation ended sooner its last answer stands."""
    return _standing([trajectory.rewards_A for trajectory in trajectories], attempts)


def _standing(rows: list[np.ndarray], attempts: int) -> np.ndarray:
    return np.stack([np.pad(row_A, (0, attempts - len(row_A)), mode="edge") for row_A in rows])


def _standing_answers(trajectory: Trajectory, attempts: int) -> list[str]:
    answers = [final_answer(turn.text) for turn in trajectory.attempts]
    return answers + answers[-1:] * (attempts - len(answers))


def _verdicts_right(trajectory: Trajectory) -> float:
    """The share of the policy's verdicts on its own attempts that agree with the rewards'; NaN without any."""
    marks, judged, agreed = iter(trajectory.marks_A), float("nan"), []
    for turn in trajectory.turns:
        if turn.role == "attempt":
            judged = next(marks)
        elif turn.role == "verdict" and not np.isnan(judged):
            agreed.append(turn.claim is bool(judged))
    return float(np.mean(agreed)) if agreed else float("nan")


def final_answer(text: str) -> str:
    r"""The answer an attempt settles on: its last `\boxed{...}` or `#### ...`, and where it has none the whole text.

    Only used to see whether an answer changed: spaces and case do not count.
    """
    stated = [match["boxed"] or match["hashes"] or "" for match in _STATED.finditer(text)]
    return "".join((stated[-1] if stated else text).split()).casefold()


def trajectory_record(trajectory: Trajectory, *, step: int, stage: str) -> dict[str, Any]:
    """The record of one trajectory as `trajectories.jsonl` holds it: texts, verdicts and the flip between attempts."""
    marks_A = trajectory.marks_A
    between = [
        {"after": sum(t.role == "attempt" for t in trajectory.turns[:at]), "role": turn.role, "text": turn.text}
        for at, turn in enumerate(trajectory.turns)
        if turn.role != "attempt"
    ]
    return {
        "step": step,
        "stage": stage,
        "problem_id": trajectory.problem.id,
        "messages": [dict(message) for message in trajectory.problem.messages],
        "attempts": [
            {
                "text": turn.text,
                "score": verdict.score,
                "status": verdict.status,
                "finish": turn.finish,
                "tokens": len(turn.response_ids),
            }
            for turn, verdict in zip(trajectory.attempts, trajectory.verdicts, strict=True)
        ],
        "between": between,
        "flip": flip_kind(marks_A[0], marks_A[-1]),
    }

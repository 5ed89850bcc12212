"""From trajectories to the rows that metrics, intervals and records are made of."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlcore.evaluate.metrics import answer_change, correction_rows, edit_ratio, flip_kind
from rlcore.types import Trajectory

_STATED = re.compile(r"\\boxed\s*\{(?P<boxed>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}|####(?P<hashes>[^\n]*)")


def trajectory_rows(trajectories: Sequence[Trajectory]) -> dict[str, np.ndarray]:
    """Every measurement of N scored trajectories of equally many attempts, `[N]` each (see `evaluate.metrics`).

    Beside accuracy and flips: answer_change, edit_ratio (on token ids, first against last attempt), and of each attempt
    truncated_tA (share that met the length limit) and tokens_tA.
    """
    attempts = range(len(trajectories[0].turns))
    rows = correction_rows(np.stack([t.rewards_A for t in trajectories]))
    if len(attempts) > 1:
        rows["answer_change"] = answer_change([[final_answer(turn.text) for turn in t.turns] for t in trajectories])
        rows["edit_ratio"] = edit_ratio(
            [t.turns[0].response_ids for t in trajectories], [t.turns[-1].response_ids for t in trajectories]
        )
    for a in attempts:
        turns = [t.turns[a] for t in trajectories]
        rows[f"truncated_t{a + 1}"] = np.array([turn.finish == "length" for turn in turns], dtype=np.float64)
        rows[f"tokens_t{a + 1}"] = np.array([len(turn.response_ids) for turn in turns], dtype=np.float64)
    return rows


def final_answer(text: str) -> str:
    r"""The answer an attempt settles on: its last `\boxed{...}` or `#### ...`, and where it has none the whole text.

    Only used to see whether an answer changed: spaces and case do not count.
    """
    stated = [match["boxed"] or match["hashes"] or "" for match in _STATED.finditer(text)]
    return "".join((stated[-1] if stated else text).split()).casefold()


def trajectory_record(trajectory: Trajectory, *, step: int, stage: str) -> dict[str, Any]:
    """The record of one trajectory as `trajectories.jsonl` holds it: texts, verdicts and the flip between attempts."""
    scores = [verdict.score for verdict in trajectory.verdicts]
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
            for turn, verdict in zip(trajectory.turns, trajectory.verdicts, strict=True)
        ],
        "flip": flip_kind(scores[0], scores[-1]),
    }

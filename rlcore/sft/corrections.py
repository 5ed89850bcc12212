"""Rows of supervised self-correction: rejection-sampled from the policy's own conversations, or given by the data.

The two baselines of Kumar et al. 2024 (arXiv 2409.12917, section 4): STaR keeps conversations whose last attempt mends
the first (Zelikman et al. 2022); Pair-SFT joins a wrong first attempt with a right one at the same problem (Welleck et
al. 2023). With `keep_right` both also keep conversations that are right twice. Only the last attempt is learned.
"""

from collections.abc import Iterable, Iterator, Sequence
from random import Random

from rlcore.data.tasks import check_task
from rlcore.recipe.schema import SftConfig
from rlcore.rollout import Conversation
from rlcore.sft.trainer import IGNORED, Row
from rlcore.train.few_steps import demonstration
from rlcore.types import Groups, Problem, Trajectory, Turn


def star_rows(groups: Groups, *, keep_right: bool) -> list[Row]:
    """One row for each conversation that begins wrong and ends right, or is right twice where those are kept."""
    ends_right = [t for group in groups for t in group if _right(t, -1) and t.turns[-1].finish == "stop"]
    wanted = [t for t in ends_right if t.marks_A[0] == 0 or (keep_right and _right(t, 0))]
    return [_row(t.turns, t.turns[-1].response_ids) for t in wanted]


def pair_rows(groups: Groups, *, keep_right: bool, rng: Random) -> list[Row]:
    """One row for each first attempt that can be joined with a correct one of another conversation on its problem."""
    return [row for group in groups for row in _pairs(group, keep_right, rng)]


def column_rows(problems: Iterable[Problem], conversation: Conversation, section: SftConfig) -> Iterator[Row]:
    """One row for each problem whose demonstration, the text in `section.column`, fits into an attempt."""
    for problem in problems:
        if section.loss == "outputs":
            check_task(problem)
        row = demonstration(conversation, problem, section.column, section.loss)
        if len(row.answer_ids) <= conversation.max_attempt_tokens:
            labels = [IGNORED] * len(row.prompt_ids) + [*row.answer_ids]
            for place in row.places:
                labels[place] = row.prompt_ids[place]
            yield {"input_ids": [*row.prompt_ids, *row.answer_ids], "labels": labels}


def sampled_rows(groups: Groups, section: SftConfig, rng: Random) -> list[Row]:
    """The rows that the recipe selects."""
    if section.rows == "star":
        return star_rows(groups, keep_right=section.keep_right)
    return pair_rows(groups, keep_right=section.keep_right, rng=rng)


def _pairs(group: Sequence[Trajectory], keep_right: bool, rng: Random) -> Iterator[Row]:
    right = [t for t in group if _right(t, 0) and t.turns[0].finish == "stop"]
    for trajectory in group:
        partners = [other for other in right if other is not trajectory]
        wanted = trajectory.marks_A[0] == 0 or (keep_right and _right(trajectory, 0))
        if partners and wanted and trajectory.turns[0].finish == "stop":
            yield _row(trajectory.turns, rng.choice(partners).turns[0].response_ids)


def _right(trajectory: Trajectory, attempt: int) -> bool:
    return bool(trajectory.marks_A[attempt] == 1)  # False for NaN: not scored


def _row(turns: Sequence[Turn], last_ids: Sequence[int]) -> Row:
    """The conversation with this last attempt, the only part that is learned."""
    before = [token for turn in turns[:-1] for token in (*turn.prompt_ids, *turn.response_ids)]
    before += turns[-1].prompt_ids
    return {"input_ids": [*before, *last_ids], "labels": [*[IGNORED] * len(before), *last_ids]}

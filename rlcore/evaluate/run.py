"""Evaluating a policy: greedy and sampled attempts on held-out problems, shared out over all ranks."""

from collections.abc import Callable, Sequence

from rlcore.evaluate.gather import gather_list, gather_rows
from rlcore.evaluate.measure import trajectory_record, trajectory_rows
from rlcore.evaluate.results import Evaluation, Results, histogram
from rlcore.learner.distributed import Ranks
from rlcore.recipe import Recipe
from rlcore.rollout import Rollout
from rlcore.types import Problem, Trajectory

MODES = ("greedy", "sampled")
EXAMPLES = 200
"""Trajectories of each mode that are kept to be looked at."""


def evaluate_policy(
    recipe: Recipe,
    rollout: Rollout,
    problems: Sequence[Problem],
    ranks: Ranks,
    *,
    step: int,
    on_problems: Callable[[int], object] = lambda done: None,
) -> Results:
    """One conversation a problem and mode. The random numbers depend on the recipe's seed alone.

    `on_problems` is told how many conversations of this rank have ended. All ranks get the same results.
    """
    assert recipe.evaluate is not None
    mine = problems[ranks.rank :: ranks.world]
    evaluations, examples, rows = [], [], {}
    for mode, temperature in zip(MODES, (0.0, recipe.evaluate.temperature), strict=True):
        trajectories: list[Trajectory] = []
        for start in range(0, len(mine), recipe.rollout.slots):
            part = mine[start : start + recipe.rollout.slots]
            groups = rollout.attempts(part, group=1, temperature=temperature, draw=("evaluate", start, ranks.rank))
            trajectories += [trajectory for (trajectory,) in groups]
            on_problems(len(part))
        rows = gather_rows(trajectory_rows(trajectories, recipe.held_out_conversation) if trajectories else {}, ranks)
        names = gather_list([trajectory.problem.id for trajectory in trajectories], ranks)
        evaluations.append(Evaluation.of_rows(mode, names, rows, seed=recipe.seed))
        examples += [trajectory_record(trajectory, step=step, stage=mode) for trajectory in trajectories[:EXAMPLES]]
    histograms = {"edit_ratio": histogram(rows["edit_ratio"])} if "edit_ratio" in rows else {}
    return Results(recipe.name, recipe.seed, step, tuple(evaluations), histograms, examples)

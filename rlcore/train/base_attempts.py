"""First attempts of the policy that a run starts from: contexts in which a later policy learns to correct.

SCoRe mixes them into stage II (Kumar et al. 2024, section 5.2), so that second attempts are not only trained after the
first attempts that the policy has come to make. They are sampled once, before the first step, and kept in the run's
folder.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rlcore.errors import UserError
from rlcore.ranks import gather_list
from rlcore.types import Problem, Turn
from rlcore.watchdog import watch

if TYPE_CHECKING:
    from rlcore.train.run import Run

FILE = "first_attempts.jsonl"


class FirstAttempts:
    """Offline first attempts of problems, as many of each as the stage that wants most of them."""

    def __init__(self, run: "Run", problems: list[Problem]):
        """Samples them, or reads them if the run goes on; UserError if they are lost. All ranks call it together."""
        self._turns: dict[str, list[Turn]] = {}
        if not problems:
            return
        path = run.folder / FILE
        if run.step == 0:
            self._turns = _sample(run, problems)
            if run.ranks.first:
                _write(path, self._turns)
        else:
            self._turns = _read(path, run, problems)

    def of(self, problem: Problem, count: int) -> list[Turn]:
        """The first `count` of a problem."""
        return self._turns[problem.id][:count] if count else []


def _sample(run: "Run", problems: list[Problem]) -> dict[str, list[Turn]]:
    most = max(run.recipe.offline_first_attempts(stage) for stage in run.recipe.stages)
    mine = problems[run.ranks.rank :: run.ranks.world]
    found: list[tuple[str, list[Turn]]] = []
    with run.tracker.progress("first attempts", len(mine)) as advance, run.rollout.together():
        for start in range(0, len(mine), run.recipe.batch.problems):
            watch(f"first attempts from problem {start + 1} on")
            part = mine[start : start + run.recipe.batch.problems]
            turns = run.rollout.first_attempts(part, most, draw=("first attempts", start, run.ranks.rank))
            found += zip((problem.id for problem in part), turns, strict=True)
            advance(len(part))
    return dict(gather_list(found, run.ranks))


def _write(path: Path, turns: dict[str, list[Turn]]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for problem, attempts in turns.items():
            ids = [{"ids": turn.response_ids, "finish": turn.finish} for turn in attempts]
            file.write(json.dumps({"problem": problem, "attempts": ids}) + "\n")
    os.replace(partial, path)


def _read(path: Path, run: "Run", problems: list[Problem]) -> dict[str, list[Turn]]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}, with the first attempts of the policy at the start, cannot be read: {error}"
        ) from None
    attempts = {row["problem"]: row["attempts"] for row in rows}
    missing = next((problem.id for problem in problems if problem.id not in attempts), None)
    if missing is not None:
        raise UserError(f"{path} has no first attempts at problem {missing}: it is of another run")
    return {p.id: [run.rollout.first_turn(p, one["ids"], one["finish"]) for one in attempts[p.id]] for p in problems}

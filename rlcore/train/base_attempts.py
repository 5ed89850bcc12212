"""First attempts of the policy that a run starts from, after which a later policy learns to correct.

SCoRe mixes them into stage II (Kumar et al. 2024, section 5.2), so that second attempts are not trained only after the
present policy's first attempts. They are sampled once, before the first step, and stored in the run's folder.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from rlcore.errors import UserError
from rlcore.files import Line, Record, read_records, write_records
from rlcore.ranks import Ranks, gather_list
from rlcore.rollout import Rollout
from rlcore.rollout.streaming import every, grouped
from rlcore.types import Problem, Turn
from rlcore.watchdog import enter_phase

FILE = "first_attempts.jsonl"

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""From a description and a number of parts to a progress bar, which yields a function to call with the number done."""


class _AttemptLine(Line):
    ids: list[int]
    logprobs: list[float]
    finish: Literal["stop", "length"]


class _BaseLine(Line):
    problem: str
    attempts: list[_AttemptLine]


class BaseAttempts:
    """Offline first attempts at problems, as many of each as the most demanding stage needs."""

    def __init__(self, folder: Path, rollout: Rollout, ranks: Ranks, progress: Progress, *, resumed: bool):
        """`folder` is the run's. A `resumed` run, whose weights have changed, reads the stored attempts."""
        self._path, self._resumed = folder / FILE, resumed
        self._rollout, self._ranks, self._progress = rollout, ranks, progress
        self._turns: dict[str, list[Turn]] = {}

    def prepare(self, problems: Sequence[Problem], count: int) -> None:
        """Samples or reads `count` first attempts at each problem. All ranks call it together.

        Raises UserError if those of a resumed run are missing.
        """
        if not problems:
            return
        if self._resumed:
            self._turns = self._read(problems, count)
            return
        self._turns = self._sample(problems, count)
        if self._ranks.first:
            write_records(self._path, map(_record, self._turns, self._turns.values()))

    def of(self, problem: Problem, count: int) -> list[Turn]:
        """The first `count` attempts at a problem."""
        return self._turns[problem.id][:count] if count else []

    def _sample(self, problems: Sequence[Problem], count: int) -> dict[str, list[Turn]]:
        mine = problems[self._ranks.rank :: self._ranks.world]
        found: list[tuple[str, list[Turn]]] = []
        with self._progress("first attempts", count * len(mine)) as advance, self._rollout.together():
            ended = self._rollout.first_attempts(every(mine, count), draw=("first attempts",))
            for place, turns in grouped(ended, count, advance):
                found.append((mine[place].id, turns))
                enter_phase(f"first attempts, {len(found)} of {len(mine)} problems done")
        return dict(sorted(gather_list(found, self._ranks)))

    def _read(self, problems: Sequence[Problem], count: int) -> dict[str, list[Turn]]:
        try:
            rows = read_records(self._path, _BaseLine)
        except UserError as error:
            raise UserError(f"the first attempts of the policy at the start are lost: {error}") from None
        kept = {row["problem"]: row["attempts"] for row in rows}
        for problem in problems:
            if len(kept.get(problem.id, ())) < count:
                raise UserError(
                    f"{self._path} holds {len(kept.get(problem.id, ()))} first attempts at problem {problem.id}, not "
                    f"the {count} that the recipe wants: they are sampled at the start of a run, from its first policy"
                )
        turn = self._rollout.first_turn
        return {p.id: [turn(p, one["ids"], one["logprobs"], one["finish"]) for one in kept[p.id]] for p in problems}


def _record(problem: str, attempts: Sequence[Turn]) -> Record:
    told = [{"ids": turn.response_ids, "logprobs": turn.logprobs, "finish": turn.finish} for turn in attempts]
    return {"problem": problem, "attempts": told}

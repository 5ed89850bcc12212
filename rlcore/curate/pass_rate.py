"""Pass rates: how often a policy solves each problem at its first attempt. They are measured once and stored."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np

from rlcore.errors import UserError
from rlcore.files import JsonlFile, Line, read_records, to_json, write_records, write_whole
from rlcore.ranks import Ranks, gather_list
from rlcore.recipe import Recipe
from rlcore.recipe.compare import differences
from rlcore.rollout.streaming import every, grouped
from rlcore.session.build import Session, fitting_problems
from rlcore.session.interrupt import Interrupt
from rlcore.track.console import open_console
from rlcore.train.step_metrics import check_scored
from rlcore.types import Groups, Problem, Trajectory

PART = 64
"""The limit on unscored attempts is checked every so many problems."""


class _RateLine(Line):
    id: str
    pass_rate: float | None


def pass_rates(recipe: Recipe, problems: list[Problem], samples: int, folder: Path, ranks: Ranks) -> dict[str, float]:
    """By problem id, the fraction of `samples` first attempts that are correct; NaN where none was scored.

    Problems with prompts that are too long have none. Each rate is written to `folder` as soon as it is measured, so an
    interrupted measurement resumes. Raises Stopped when the process is asked to stop, and UserError if all prompts are
    too long.
    """
    file = folder / f"pass_rates-{ranks.rank}-of-{ranks.world}.jsonl"
    kept = read_records(file, _RateLine) if file.exists() else []
    write_records(file, kept)  # without a torn last line
    known = {record["id"]: record["pass_rate"] for record in kept}
    with closing(Session(recipe, ranks)) as session:
        fitting = fitting_problems(session.conversation, problems, lambda line: None, shown=ranks.first)
        mine = [problem for problem in fitting[ranks.rank :: ranks.world] if problem.id not in known]
        known |= _measured(session, recipe, mine, samples, file, ranks)
    everywhere = dict(gather_list(list(known.items()), ranks))
    return {problem.id: everywhere[problem.id] for problem in fitting}


def _measured(
    session: Session, recipe: Recipe, mine: Sequence[Problem], samples: int, file: Path, ranks: Ranks
) -> dict[str, float]:
    """The pass rates of this rank's problems, also appended to the file."""
    found: dict[str, float] = {}
    with (
        closing(open_console(0, done=0)) if ranks.first else nullcontext() as console,
        Interrupt(ranks) as interrupt,
        interrupt.nothing_to_save(),
        closing(JsonlFile(file)) as lines,
        console.progress("pass rates", samples * len(mine)) if console else nullcontext(lambda done: None) as advance,
        session.rollout.together(),
    ):
        ended = session.rollout.stream(every(mine, samples), temperature=recipe.rollout.temperature, draw=("curate",))
        recent: Groups = []
        for place, group in grouped(ended, samples, advance):
            name, rate = mine[place].id, _rate(group)
            found[name] = rate
            if not np.isnan(rate):  # otherwise it is measured again next time
                lines.write({"id": name, "pass_rate": rate})
            recent.append(group)
            if len(recent) == PART:
                check_scored(recent, recipe.rewards.max_failed)
                recent = []
        check_scored(recent, recipe.rewards.max_failed)
    return found


def check_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Raises UserError if the folder holds pass rates of other settings; an empty folder is given these."""
    path = folder / "settings.json"
    if not path.exists():
        write_whole(path, to_json(settings))
    try:
        changed = differences(json.loads(path.read_bytes()), json.loads(to_json(settings)))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if changed:
        named = ", ".join(list(changed)[:3])
        raise UserError(f"{folder} holds pass rates measured with other {named}: give another --output")


def _rate(group: Sequence[Trajectory]) -> float:
    marks = np.concatenate([trajectory.marks_A for trajectory in group])
    return float("nan") if np.isnan(marks).all() else float(np.nanmean(marks))

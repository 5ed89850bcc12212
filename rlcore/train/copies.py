"""The copies of one problem with demonstrations that test-time training makes: tasks to learn, and views to ask."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from rewards.grids import read_grid, write_grid
from rlcore.data.tasks import alone, leave_one_out, posed, retold, shown_colours, transformed
from rlcore.data.transformations import IDENTITY, SAME_COLOURS, Transformation, drawn
from rlcore.recipe.adapt import AdaptConfig
from rlcore.types import Problem


@dataclass(frozen=True, slots=True)
class Copy:
    """One conversation to hold on a problem: its view, its number in the view, and the problem as posed."""

    problem: Problem
    """The original."""
    view: int
    sample: int
    transformation: Transformation
    posed: Problem

    def undone(self, answer: str | None) -> str | None:
        """An answer to this copy as the answer to the original that it means; None if it is no grid."""
        if answer is None or self.transformation == IDENTITY:
            return answer
        grid = read_grid(answer)
        return write_grid(self.transformation.undo(grid)) if grid else None


def copies(problem: Problem, section: AdaptConfig, template: str, seed: int) -> list[Copy]:
    """All conversations on a problem, view by view. The first view is the problem itself.

    Views of text, which cannot be transformed, differ in the order of the demonstrations and in the wording of inputs.
    """
    rng = Random(f"{seed} copies {problem.id}")
    grids = isinstance(problem.columns["input"], list)
    found = []
    for view in range(section.views):
        transformation = _drawn(problem, section, rng) if grids and view else IDENTITY
        row = transformed(dict(problem.columns), transformation)
        for sample in range(section.samples):
            told = retold(row, rng) if view or sample else row
            name = f"{problem.id}/{view}.{sample}"
            found.append(Copy(problem, view, sample, transformation, posed(problem, name, told, template)))
    return found


def lessons(problem: Problem, section: AdaptConfig, template: str, seed: int) -> Iterator[Problem]:
    """The tasks to learn, as many as all steps take: each demonstration in turn, randomly transformed.

    They are made only of the demonstrations; none contains what the problem asks.
    """
    rng = Random(f"{seed} lessons {problem.id}")
    tasks = (leave_one_out if section.tasks == "leave_one_out" else alone)(dict(problem.columns))
    for number in range(section.steps * section.batch):
        row = tasks[number % len(tasks)]
        if section.transform and isinstance(row["input"], list):
            row = transformed(row, _drawn(problem, section, rng))
        yield posed(problem, f"{problem.id}/lesson {number}", retold(row, rng), template)


def _drawn(problem: Problem, section: AdaptConfig, rng: Random) -> Transformation:
    colours = shown_colours(dict(problem.columns)) if section.colours == "shown" else SAME_COLOURS
    return drawn(rng, colours)

"""What is made of one problem with demonstrations at test time: tasks to learn, and transformed copies to ask."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from rewards.grids import read_grid, write_grid
from rlcore.data.tasks import alone, leave_one_out, posed, reordered, transformed
from rlcore.data.transformations import IDENTITY, Transformation, drawn
from rlcore.recipe.adapt import AdaptConfig
from rlcore.types import Problem


@dataclass(frozen=True, slots=True)
class Copy:
    """One conversation to hold on a problem: a view of it, its number in the view, and the problem as it is posed."""

    problem: Problem
    """The original."""
    view: int
    sample: int
    transformation: Transformation
    posed: Problem

    def undone(self, answer: str | None) -> str | None:
        """The answer to the original that an answer to this copy is; None where it is no grid."""
        if answer is None or self.transformation == IDENTITY:
            return answer
        grid = read_grid(answer)
        return write_grid(self.transformation.undo(grid)) if grid else None


def copies(problem: Problem, section: AdaptConfig, template: str, seed: int) -> list[Copy]:
    """All conversations on a problem, view by view. The first is the problem as it is.

    Text, which cannot be transformed, has views that differ in the order of demonstrations alone.
    """
    rng = Random(f"{seed} copies {problem.id}")
    grids = isinstance(problem.columns["input"], list)
    found = []
    for view in range(section.views):
        transformation = drawn(rng) if grids and view else IDENTITY
        row = transformed(dict(problem.columns), transformation)
        for sample in range(section.samples):
            ordered = reordered(row, rng) if view or sample else row
            name = f"{problem.id}/{view}.{sample}"
            found.append(Copy(problem, view, sample, transformation, posed(problem, name, ordered, template)))
    return found


def lessons(problem: Problem, section: AdaptConfig, template: str, seed: int) -> Iterator[Problem]:
    """The tasks that are learned, as many as all steps take: each demonstration in turn, in drawn copies.

    They are made of the demonstrations alone; what the problem asks is in none of them.
    """
    rng = Random(f"{seed} lessons {problem.id}")
    tasks = (leave_one_out if section.tasks == "leave_one_out" else alone)(dict(problem.columns))
    for number in range(section.steps * section.batch):
        row = tasks[number % len(tasks)]
        if section.transform and isinstance(row["input"], list):
            row = transformed(row, drawn(rng))
        yield posed(problem, f"{problem.id}/lesson {number}", reordered(row, rng), template)

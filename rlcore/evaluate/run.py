"""Evaluating a policy: greedy and sampled attempts on held-out problems, shared out over all ranks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Protocol

import numpy as np

from rlcore.evaluate.estimators import vote_rows
from rlcore.evaluate.gather import gather_list, gather_rows
from rlcore.evaluate.journal import Journal
from rlcore.evaluate.measure import record_rows, trajectory_record
from rlcore.evaluate.records import Record
from rlcore.evaluate.results import Evaluation, Results, histogram
from rlcore.learner.distributed import Ranks
from rlcore.recipe import Recipe
from rlcore.types import Groups, Problem

EXAMPLES = 200
"""Conversations of each mode that are kept to be looked at."""
NO_VOTES = "majority votes are left out: the reward reads no answers that could be compared"


class Asks(Protocol):
    """Whatever holds conversations with a policy (`rlcore.rollout.Rollout`)."""

    def together(self) -> AbstractContextManager[None]:
        """Around all attempts before ranks meet elsewhere."""

    def attempts(
        self, problems: Sequence[Problem], *, group: int, temperature: float, draw: tuple[str | int, ...]
    ) -> Groups:
        """`group` scored trajectories of each problem. The same `draw` names the same random numbers."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of sampling: so many conversations of each problem."""

    name: str
    temperature: float
    samples: int


def modes_of(recipe: Recipe, *, full: bool) -> tuple[Mode, Mode]:
    """Greedy, and sampled: `evaluate.samples` conversations of each problem in a full evaluation, else one."""
    assert recipe.evaluate is not None
    samples = recipe.evaluate.samples if full else 1
    return Mode("greedy", 0.0, 1), Mode("sampled", recipe.evaluate.temperature, samples)


def evaluate_policy(
    recipe: Recipe,
    asks: Asks,
    problems: Sequence[Problem],
    ranks: Ranks,
    *,
    step: int,
    full: bool,
    journal: Journal | None = None,
    on_conversations: Callable[[int], object] = lambda done: None,
) -> Results:
    """Figures of a policy at `step`; the random numbers depend on the recipe's seed alone.

    `on_conversations` is told how many conversations of this rank have ended; `journal` holds those that ended before
    and takes the others, chunk by chunk. All ranks get the same results.
    """
    mine = problems[ranks.rank :: ranks.world]
    most = -(-len(problems) // ranks.world)
    journal = journal or Journal()
    evaluations, examples, histograms, notes = [], [], {}, []
    for mode in modes_of(recipe, full=full):
        records: list[Record] = []
        size = max(1, recipe.rollout.slots // mode.samples)
        with asks.together():
            for start in range(0, most, size):
                chunk = journal.read(mode.name, start)
                if chunk is None and mine[start : start + size]:
                    groups = asks.attempts(
                        mine[start : start + size],
                        group=mode.samples,
                        temperature=mode.temperature,
                        draw=("evaluate", start, ranks.rank),
                    )
                    told = [trajectory_record(t, step=step, stage=mode.name) for group in groups for t in group]
                    chunk = journal.write(mode.name, start, told)
                records += chunk or []
                on_conversations(len(chunk or []))
        evaluation, values_N, voted = _measure(mode, records, recipe, ranks)
        evaluations.append(evaluation)
        histograms = {"edit_ratio": histogram(values_N)} if values_N is not None else {}
        notes = [] if voted else [NO_VOTES]
        examples += _examples(records)
    return Results(recipe.name, recipe.seed, step, tuple(evaluations), histograms, examples, notes)


def _measure(
    mode: Mode, records: Sequence[Record], recipe: Recipe, ranks: Ranks
) -> tuple[Evaluation, np.ndarray | None, bool]:
    """The evaluation of all ranks' records, their edit ratios, and whether votes could be counted where they should."""
    section = recipe.held_out_conversation
    rows = gather_rows(record_rows(records, section) if records else {}, ranks)
    names = gather_list([record["problem_id"] for record in records], ranks)
    parts = gather_list([record["parts"] for record in records], ranks)
    evaluation = Evaluation.of_rows(mode.name, names, rows, seed=recipe.seed).with_parts(names, rows, parts)
    voted = True
    if mode.samples > 1:
        answered = any(gather_list([_answers(record) for record in records], ranks))
        groups = [records[start : start + mode.samples] for start in range(0, len(records), mode.samples)]
        votes = gather_rows(_stacked([vote_rows(group, section.attempts) for group in groups]), ranks)
        votes = {name: values_P for name, values_P in votes.items() if answered or not name.startswith("maj")}
        evaluation = evaluation.with_rows(names[:: mode.samples], votes, seed=recipe.seed)
        voted = answered
    return evaluation, rows.get("edit_ratio"), voted


def _answers(record: Record) -> bool:
    return any(attempt["answer"] is not None for attempt in record["attempts"])


def _stacked(rows: Sequence[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _examples(records: Sequence[Record]) -> list[Record]:
    """Some of the records, the kinds of flips in turn: the rare ones are the ones to look at."""
    kinds: dict[str, list[Record]] = {}
    for record in records:
        kinds.setdefault(str(record["flip"]), []).append(record)
    in_turn: Iterator[Record | None] = chain.from_iterable(zip_longest(*kinds.values()))
    return [record for record in in_turn if record is not None][:EXAMPLES]

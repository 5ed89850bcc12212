"""Training at test time: for each problem a few steps on its own demonstrations, then a vote among transformed copies.

Akyürek et al. 2024, "The surprising effectiveness of test-time training for abstract reasoning" (arXiv 2411.07279).
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from rlcore.credit.votes import Answers, most_frequent, two_level
from rlcore.data.tasks import check_task
from rlcore.errors import UserError
from rlcore.evaluate.journal import Journal
from rlcore.evaluate.measure import mark, record_rows, trajectory_record
from rlcore.evaluate.results import Evaluation, Results, save_evaluation
from rlcore.files import Record, holding
from rlcore.policy.many_adapters import many_adapters
from rlcore.ranks import Ranks, gather_list, gather_rows, start_distributed
from rlcore.recipe import Recipe
from rlcore.recipe.adapt import AdaptConfig
from rlcore.rollout.embedded.engine import TorchEngine
from rlcore.rollout.sampling import mixed_seed
from rlcore.session.build import Session
from rlcore.session.evaluation import EXAMPLES, identity, open_tracker
from rlcore.session.interrupt import Interrupt, Stopped
from rlcore.track import Tracker
from rlcore.train.copies import Copy, copies, lessons
from rlcore.train.few_steps import Row, demonstration, learn
from rlcore.types import Problem

TOP = 2
"""Answers kept of each problem: as many as ARC allows."""
Advance = Callable[[int], object]
Talk = tuple[Copy, Record]
"""What was asked in a conversation, and its record."""


def adapt(recipe: Recipe) -> Results | None:
    """Answers the held-out problems, each by the policy as its demonstrations have trained it, and writes a report.

    Each rank answers problems of its own. Conversations are stored as they end, so that the same command resumes; a
    problem that lacks some is trained again in the same way. Returns None when asked to stop. Raises UserError for
    problems without demonstrations, and for a rollout engine that does not sample from the model itself.
    """
    section = _checked(recipe)
    ranks, folder = start_distributed(recipe.device, recipe.learner.deadline), Path(recipe.output)
    if section.shared and ranks.world > 1:
        raise UserError("adapt.shared: one adapter of all problems is trained by one process alone, without torchrun")
    with holding(folder, ranks.first), closing(Session(recipe, ranks, training=False)) as session:
        for problem in session.held_out:
            check_task(problem)
        told = identity(recipe, ranks, session.inputs) | {"adapt": section.model_dump(mode="json")}
        with (
            closing(Journal(folder / f"attempts-{ranks.rank}.jsonl", told)) as journal,
            open_tracker(recipe, ranks, resume_step=None) as tracker,
        ):
            try:
                with Interrupt(ranks) as interrupt, interrupt.nothing_to_save():
                    mine = session.held_out[ranks.rank :: ranks.world]
                    adapted = _Adaptation(recipe, section, session, journal).talks(mine, tracker)
            except Stopped:
                tracker.say(f"stopped; what is done is kept in {folder}, and the same command goes on from there")
                return None
            results = _results(recipe, section, adapted, ranks)
            _show(results, folder, ranks, tracker)
            return results


def _checked(recipe: Recipe) -> AdaptConfig:
    if recipe.adapt is None or recipe.evaluate is None:
        lacking = "adapt" if recipe.adapt is None else "evaluate"
        raise UserError(f"recipe {recipe.name} has no {lacking} section: rlcore adapt needs it")
    if recipe.rollout.entry.weights != "learner" or recipe.learner.zero == 3:
        raise UserError("adapt trains the model that is sampled from: rollout.engine torch, and learner.zero below 3")
    if recipe.model.lora:
        raise UserError("adapt brings adapters of its own, adapt.lora: leave model.lora out")
    return recipe.adapt


class _Adaptation:
    """Trains adapters on problems and holds the conversations with them in place."""

    def __init__(self, recipe: Recipe, section: AdaptConfig, session: Session, journal: Journal):
        assert recipe.evaluate
        self._recipe, self._section, self._session, self._journal = recipe, section, session, journal
        self._template, self._temperature = recipe.evaluate.data.prompt, recipe.evaluate.temperature

    def talks(self, problems: Sequence[Problem], tracker: Tracker) -> dict[str, list[Talk]]:
        """The conversations on each problem, by its id, view by view; those in the journal are not held again."""
        section = self._section
        asked = [copy for p in problems for copy in copies(p, section, self._template, self._recipe.seed)]
        self._check_lengths([copy.posed for copy in asked])
        found = [self._journal.read(f"view {copy.view}", copy.problem.id, copy.sample) for copy in asked]
        records = {at: record for at, record in enumerate(found) if record}
        parts = self._parts(problems, records)
        todo = sum(len(missing) + self._steps(part) for part, missing in parts)
        with tracker.progress("steps and conversations", todo) as advance:
            for part, missing in parts:
                answers = self._answer(part, [asked[at] for at in missing], advance)
                records |= {missing[at]: record for at, record in answers.items()}
        by_problem: dict[str, list[Talk]] = {problem.id: [] for problem in problems}
        for at, copy in enumerate(asked):
            by_problem[copy.problem.id].append((copy, records[at]))
        return by_problem

    def _parts(self, problems: Sequence[Problem], done: Collection[int]) -> list[tuple[Sequence[Problem], list[int]]]:
        """The problems that are answered together, with the numbers of the conversations that are not `done`."""
        section = self._section
        together = section.together if section.steps and not section.shared else max(1, len(problems))
        each = section.views * section.samples
        parts = []
        for start in range(0, len(problems), together):
            part = problems[start : start + together]
            missing = [at for at in range(start * each, (start + len(part)) * each) if at not in done]
            if missing:
                parts.append((part, missing))
        return parts

    def _check_lengths(self, posed: Sequence[Problem]) -> None:
        """Raises UserError for a prompt that is too long: a copy may take more tokens than the problem as it is."""
        talk = self._session.conversation
        for problem, tokens in zip(posed, talk.prompt_tokens(posed), strict=True):
            if tokens > talk.max_prompt_tokens:
                raise UserError(
                    f"problem {problem.id} is {tokens} tokens long, transformed or in other words: "
                    f"conversation.max_prompt_tokens is {talk.max_prompt_tokens}"
                )

    def _steps(self, problems: Sequence[Problem]) -> int:
        """Optimizer steps before these problems are answered."""
        return self._section.steps * (len(problems) if self._section.shared else 1)

    def _answer(self, problems: Sequence[Problem], asked: Sequence[Copy], advance: Advance) -> dict[int, Record]:
        """Trains adapters on the problems, holds the conversations `asked` with them, and drops them."""
        section, rollout = self._section, self._session.held_out_rollout
        rows_PN = [self._rows(problem) for problem in problems] if section.steps else []
        trained = [float(sum(row.tokens for row in rows)) for rows in rows_PN] or [0.0] * len(problems)
        if section.shared and rows_PN:
            rows = [row for rows in rows_PN for row in rows]
            rows_PN, trained = [Random(self._recipe.seed).sample(rows, len(rows))], [sum(trained) / len(problems)]
        own = {problem.id: 0 if section.shared else at for at, problem in enumerate(problems)}
        records = {}
        with self._adapters(problems, rows_PN, advance) as losses, rollout.together():
            requests, adapters = [(copy.posed, 0) for copy in asked], {c.posed.id: own[c.problem.id] for c in asked}
            talks = rollout.stream(requests, temperature=self._temperature, draw=("adapt",), adapters=adapters)
            for at, talk in talks:
                copy, mine = asked[at], own[asked[at].problem.id]
                told = trajectory_record(talk, step=0, stage=f"view {copy.view}")
                told |= {"problem_id": copy.problem.id, "transformation": copy.transformation.name}
                record = {**told, "trained_tokens": trained[mine], "loss": losses[mine]}
                records[at] = self._journal.write(record, copy.sample)
                advance(1)
        return records

    @contextmanager
    def _adapters(
        self, problems: Sequence[Problem], rows_PN: Sequence[Sequence[Row]], advance: Advance
    ) -> Iterator[list[float]]:
        """Has adapters trained on these rows in the model, one for each list of them; gives their last losses."""
        if not rows_PN:
            yield [math.nan] * len(problems)
            return
        section, model, engine = self._section, self._session.policy.model, self._session.held_out_rollout.engine
        assert isinstance(engine, TorchEngine)
        seeds = [mixed_seed(self._recipe.seed, "adapt", problem.id) for problem in problems[: len(rows_PN)]]
        batch, lr, limit = section.batch, section.lr, self._recipe.learner.micro_batch_tokens
        with many_adapters(model, section.lora, seeds) as engine.adapters:
            try:
                yield learn(
                    model,
                    engine.adapters,
                    rows_PN,
                    batch=batch,
                    lr=lr,
                    micro_batch_tokens=limit,
                    seed=seeds[0],
                    on_step=advance,
                )
            finally:
                engine.adapters = None

    def _rows(self, problem: Problem) -> list[Row]:
        """The tasks to learn of a problem."""
        talk, section = self._session.conversation, self._section
        asked = lessons(problem, section, self._template, self._recipe.seed)
        return [demonstration(talk, lesson, "answer", section.loss) for lesson in asked]


def _results(recipe: Recipe, section: AdaptConfig, adapted: Mapping[str, Sequence[Talk]], ranks: Ranks) -> Results:
    """The figures of single conversations and of the votes, over the problems of all ranks."""
    records = [record for each in adapted.values() for _, record in each]
    names = gather_list([record["problem_id"] for record in records], ranks)
    rows = gather_rows(record_rows(records, recipe.held_out_conversation) if records else {}, ranks)
    voted = [voted_row(each, section.votes) for each in adapted.values()]
    columns = {name: np.array([row[name] for row in voted]) for name in voted[0]} if voted else {}
    evaluation = Evaluation.of_rows("sampled", names, rows, seed=recipe.seed)
    evaluation = evaluation.with_rows(gather_list(list(adapted), ranks), gather_rows(columns, ranks), seed=recipe.seed)
    return Results(recipe.name, recipe.seed, 0, (evaluation,), examples=records[:EXAMPLES])


def voted_row(talks: Sequence[Talk], votes: str) -> dict[str, float]:
    """The measurements of one problem.

    `top1` and `top2`: whether the first, or one of the two answers that the vote keeps was judged right (NaN if none of
    its samples was scored). `sampled_tokens` and `trained_tokens`: the cost.
    """
    answers: dict[int, list[str | None]] = {}
    right: dict[str | None, float] = {}
    for copy, record in talks:
        attempt = record["attempts"][-1]
        answer = copy.undone(attempt["answer"])
        answers.setdefault(copy.view, []).append(answer)
        if not math.isnan(judged := mark(attempt)):
            right.setdefault(answer, judged)
    kept = [answer for answer in _vote(list(answers.values()), votes) if answer in right]
    marks = [right[answer] for answer in kept] or ([0.0] if right else [math.nan])
    said = [part for _, record in talks for part in (*record["attempts"], *record["between"])]
    return {
        "top1": marks[0],
        "top2": max(marks),
        "sampled_tokens": float(sum(part["tokens"] for part in said)),
        "trained_tokens": float(talks[0][1]["trained_tokens"]),
    }


def _vote(answers_VN: Sequence[Answers], votes: str) -> list[str]:
    if votes == "two_level":
        return two_level(answers_VN, top=TOP)
    return most_frequent([answer for answers_N in answers_VN for answer in answers_N], TOP)


def _show(results: Results, folder: Path, ranks: Ranks, tracker: Tracker) -> None:
    """Writes the evaluation and its report, and prints the figures of the votes."""
    if ranks.first:
        save_evaluation(folder / "evaluation.json", results)
    tracker.evaluated(results)
    (evaluation,) = results.evaluations
    tracker.log(0, "adapt", evaluation.values)
    figures: dict[str, Any] = {name: evaluation.metrics[name][0] for name in ("t1", "top1", "top2")}
    tracker.say("  ".join(f"{name} {100 * value:.1f}" for name, value in figures.items()))
    if ranks.first:
        from rlcore.report.page import write_report  # draws plots: matplotlib

        tracker.say(f"report: {write_report(folder, [folder])}")

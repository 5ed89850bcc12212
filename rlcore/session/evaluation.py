"""Evaluating a recipe's model, alone or inside a run."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.evaluate.estimators import vote_rows
from rlcore.evaluate.journal import Journal
from rlcore.evaluate.measure import record_rows, trajectory_record
from rlcore.evaluate.results import Evaluation, Results, histogram, save_evaluation
from rlcore.files import Record, holding
from rlcore.ranks import Ranks, gather_list, gather_rows, start_distributed
from rlcore.recipe import Recipe, dump_recipe
from rlcore.rollout import Scorer
from rlcore.rollout.endpoint import Endpoint, EndpointRollout
from rlcore.rollout.streaming import every
from rlcore.session.build import Setup
from rlcore.session.inputs import Inputs, read_inputs
from rlcore.session.interrupt import Interrupt, Stopped
from rlcore.track import Tracker
from rlcore.types import Problem, Request, Trajectory

BASE = "evaluation_base"
"""The evaluation of the policy that a run starts from, whatever the run's own arm."""
LATEST = "evaluation_latest"
"""The last evaluation while training: on fewer problems, one conversation each."""
FORMAT = "conversations"
"""What the lines of a journal are, and how random numbers are named."""


def evaluate(recipe: Recipe) -> Results | None:
    """Measures the recipe's model, or that behind `evaluate.endpoint`, on the held-out problems, and writes a report.

    In the recipe's output: `evaluation.json`, `report.html` and what belongs to it, and the attempts as they come, so
    that the same command goes on where it was stopped. Returns None when it was asked to stop. Raises UserError, before
    anything is changed, where the output holds another evaluation.
    """
    if recipe.evaluate is None:
        raise UserError(f"recipe {recipe.name} has no evaluate section to say what to measure on")
    ranks = start_distributed(recipe.device)
    folder = Path(recipe.output)
    served = recipe.evaluate.endpoint is not None
    with (
        holding(folder, ranks.first),
        closing(ServedSetup(recipe) if served else Setup(recipe, ranks, training=False)) as setup,
        closing(Journal(folder / f"attempts-{ranks.rank}.jsonl", identity(recipe, ranks, setup.inputs))) as journal,
    ):
        return _evaluate_alone(recipe, ranks, setup, journal)


def _evaluate_alone(recipe: Recipe, ranks: Ranks, setup: "Setup | ServedSetup", journal: Journal) -> Results | None:
    assert recipe.evaluate is not None
    folder = Path(recipe.output)
    with open_tracker(recipe, ranks, resume_step=None) as tracker:
        if journal.done:
            tracker.say(f"what {folder} holds of this evaluation is not sampled again; another output samples anew")
        problems = recipe.evaluate.problems
        try:
            with Interrupt(ranks) as interrupt, interrupt.nothing_to_save():
                results = evaluate_and_save(recipe, setup, ranks, tracker, problems=problems, step=0, journal=journal)
        except Stopped:
            tracker.say(f"stopped; what is done is kept in {folder}, and the same command goes on from there")
            return None
        tracker.log(0, "evaluation", {k: v for part in results.evaluations for k, v in part.values.items()})
        if ranks.first:
            from rlcore.report.page import write_report  # draws plots: matplotlib

            tracker.say(f"report: {write_report(folder, [folder])}")
        return results


def evaluate_and_save(
    recipe: Recipe,
    setup: "Setup | ServedSetup",
    ranks: Ranks,
    tracker: Tracker,
    *,
    problems: int,
    step: int,
    name: str = "evaluation",
    journal: Journal | None = None,
) -> Results:
    """Evaluates on the first `problems` held-out problems, under a progress bar, and writes `NAME.json`."""
    held_out, full, journal = setup.held_out[:problems], name != LATEST, journal or Journal()
    mine = len(held_out[ranks.rank :: ranks.world])
    conversations = mine * sum(mode.samples for mode in modes_of(recipe, full=full))
    with tracker.progress(name.replace("_", " "), conversations - journal.done) as advance:
        results = evaluate_policy(
            recipe,
            setup.held_out_rollout,
            held_out,
            ranks,
            step=step,
            full=full,
            journal=journal,
            on_conversation=advance,
        )
    if name == BASE:
        results = replace(results, arm="base")
    if ranks.first:
        save_evaluation(Path(recipe.output) / f"{name}.json", results)
    tracker.evaluated(results)
    return results


def identity(recipe: Recipe, ranks: Ranks, inputs: Inputs) -> dict[str, Any]:
    """All that the attempts depend on: the recipe's part in them, what it reads, the weights, how ranks share them."""
    parts = recipe.model_dump(mode="json", include={"seed", "model", "rollout", "rewards", "evaluate", "conversation"})
    path = Path(recipe.model.path or "")
    files = sorted(path.glob("*")) if recipe.model.path and path.is_dir() else []
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    digest = hashlib.blake2b(repr(weights).encode(), digest_size=16).hexdigest()
    return {**parts, "inputs": inputs, "weights": digest, "ranks": ranks.world, "format": FORMAT}


class ServedSetup:
    """What an evaluation needs of a recipe when a server holds the model: held-out problems, and conversations."""

    def __init__(self, recipe: Recipe):
        assert recipe.evaluate is not None
        assert recipe.evaluate.endpoint is not None
        endpoint = Endpoint(recipe.evaluate.endpoint, recipe.model.path, recipe.rollout.deadline)
        self.held_out = load_problems(recipe.evaluate.data)[: recipe.evaluate.problems]
        self.inputs = read_inputs(recipe, [], self.held_out)
        self._scorer = Scorer(recipe.rewards)
        self.held_out_rollout = EndpointRollout(recipe, recipe.held_out_conversation, endpoint, self._scorer)

    def close(self) -> None:
        self._scorer.close()


def open_tracker(recipe: Recipe, ranks: Ranks, *, resume_step: int | None, run_id: str = "") -> Tracker:
    """The tracker of a run in its folder, where the resolved recipe is written first."""
    folder = Path(recipe.output)
    if ranks.first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        except OSError as error:
            raise UserError(f"folder {folder} cannot be written: {error.strerror}") from None
    return Tracker(
        folder,
        recipe.track,
        recipe.model_dump(mode="json"),
        run_name=recipe.name,
        resume_step=resume_step,
        run_id=run_id,
        enabled=ranks.first,
        total_steps=recipe.steps,
    )


EXAMPLES = 200
"""Conversations of each mode that are kept to be looked at."""
NO_VOTES = "majority votes are left out: the reward reads no answers that could be compared"


class Asks(Protocol):
    """Whatever holds conversations with a policy (`rlcore.rollout.Rollout`)."""

    def together(self) -> AbstractContextManager[None]:
        """Around all attempts before ranks meet elsewhere."""

    def stream(
        self, requests: Sequence[Request], *, temperature: float, draw: tuple[str | int, ...]
    ) -> Iterator[tuple[int, Trajectory]]:
        """Scored conversations as they end, each with the place of its request.

        Its random numbers depend on `draw` and its request alone.
        """


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
    on_conversation: Callable[[int], object] = lambda done: None,
) -> Results:
    """Figures of a policy at `step`; the random numbers depend on the recipe's seed alone.

    `journal` holds the conversations of this rank that ended before, and takes each of the others as it ends;
    `on_conversation` is told of these. All ranks get the same results.
    """
    mine = problems[ranks.rank :: ranks.world]
    journal = journal or Journal()
    evaluations, examples, histograms, notes = [], [], {}, []
    for mode in modes_of(recipe, full=full):
        with asks.together():
            records = _sampled(mode, asks, mine, journal, step, on_conversation)
        evaluation, values_N, voted = _measure(mode, records, recipe, ranks)
        evaluations.append(evaluation)
        histograms = {"edit_ratio": histogram(values_N)} if values_N is not None else {}
        notes = [] if voted else [NO_VOTES]
        examples += _examples(records)
    return Results(recipe.name, recipe.seed, step, tuple(evaluations), histograms, examples, notes)


def _sampled(
    mode: Mode,
    asks: Asks,
    problems: Sequence[Problem],
    journal: Journal,
    step: int,
    on_conversation: Callable[[int], object],
) -> list[Record]:
    """The records of all conversations, those of each problem together and in the order of the problems."""
    requests = every(problems, mode.samples)
    records = [journal.read(mode.name, problem.id, sample) for problem, sample in requests]
    missing = [place for place, record in enumerate(records) if record is None]
    stream = asks.stream([requests[place] for place in missing], temperature=mode.temperature, draw=("evaluate",))
    for at, trajectory in stream:
        place = missing[at]
        told = trajectory_record(trajectory, step=step, stage=mode.name)
        records[place] = journal.write(told, requests[place][1])
        on_conversation(1)
    return [record for record in records if record is not None]


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

"""Evaluating a recipe's model, alone or during a run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.data import load_held_out
from rlcore.errors import UserError
from rlcore.evaluate.estimators import vote_rows
from rlcore.evaluate.journal import Journal
from rlcore.evaluate.measure import record_rows, trajectory_record
from rlcore.evaluate.results import Evaluation, Results, histogram, save_evaluation
from rlcore.files import Record, holding, writing
from rlcore.ranks import Ranks, all_gather, gather_list, gather_rows, start_distributed
from rlcore.recipe import Recipe, dump_recipe
from rlcore.rollout import Rollout, Scorer
from rlcore.rollout.endpoint import Endpoint, EndpointRollout
from rlcore.rollout.streaming import every
from rlcore.session.build import Session
from rlcore.session.inputs import Inputs, read_inputs, read_weights
from rlcore.session.interrupt import Interrupt, Stopped
from rlcore.track import Tracker
from rlcore.types import Problem

BASE_RESULTS = "evaluation_base"
"""The evaluation of the policy that a run starts from; its arm is `base`."""
LATEST_RESULTS = "evaluation_latest"
"""The latest evaluation during training: fewer problems, one conversation each."""
FORMAT = "conversations"
"""Identifies the format of the journal and the naming of random numbers."""
EXAMPLES = 200
"""Conversations of each mode stored as examples."""
NO_VOTES = "majority votes are left out: the reward reads no answers that could be compared"


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of sampling, with `samples` conversations of each problem."""

    name: str
    temperature: float
    samples: int


def evaluate(recipe: Recipe) -> Results | None:
    """Measures the recipe's model, or the one behind `evaluate.endpoint`, on the held-out problems; writes a report.

    The recipe's output receives `evaluation.json`, `report.html` with its plots, and the attempts as they end, so that
    the same command resumes an interrupted evaluation. Returns None when asked to stop. Raises UserError, before
    anything is changed, if the output holds another evaluation.
    """
    if recipe.evaluate is None:
        raise UserError(f"recipe {recipe.name} has no evaluate section to say what to measure on")
    ranks, folder = start_distributed(recipe.device, recipe.learner.deadline), Path(recipe.output)
    problems, served = recipe.evaluate.problems, recipe.evaluate.endpoint is not None
    with (
        holding(folder, ranks.first),
        closing(ServedSession(recipe) if served else Session(recipe, ranks, training=False)) as session,
        closing(Journal(folder / f"attempts-{ranks.rank}.jsonl", identity(recipe, ranks, session.inputs))) as journal,
        open_tracker(recipe, ranks, resume_step=None) as tracker,
    ):
        if journal.done:
            tracker.say(f"what {folder} holds of this evaluation is not sampled again; another output samples anew")
        try:
            with Interrupt(ranks) as interrupt, interrupt.nothing_to_save():
                results = evaluate_and_save(recipe, session, ranks, tracker, problems=problems, step=0, journal=journal)
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
    session: "Session | ServedSession",
    ranks: Ranks,
    tracker: Tracker,
    *,
    problems: int,
    step: int,
    name: str = "evaluation",
    journal: Journal | None = None,
) -> Results:
    """Evaluates on the first `problems` held-out problems, under a progress bar, and writes `NAME.json`.

    The figures are those of all ranks; random numbers depend on the recipe's seed alone. Conversations that this rank's
    `journal` holds are not sampled again, and each new one is written to it as it ends.
    """
    assert recipe.evaluate is not None
    samples = min(recipe.evaluate.samples, 1) if name == LATEST_RESULTS else recipe.evaluate.samples
    modes = [Mode("greedy", 0.0, 1)]
    if samples:
        modes.append(Mode("sampled", recipe.evaluate.temperature, samples))
    mine, journal = session.held_out[:problems][ranks.rank :: ranks.world], journal or Journal()
    conversations = len(mine) * sum(mode.samples for mode in modes)
    evaluations, examples, histograms, notes = [], [], {}, []
    with tracker.progress(name.replace("_", " "), conversations - journal.done) as advance:
        for mode in modes:
            with session.held_out_rollout.together():
                records = _sampled(mode, session.held_out_rollout, mine, journal, step, advance)
            evaluation, values_N, voted = _measure(mode, records, recipe, ranks)
            evaluations.append(evaluation)
            histograms = {"edit_ratio": histogram(values_N)} if values_N is not None else {}
            notes = [] if voted else [NO_VOTES]
            examples += _examples(records)
    arm = "base" if name == BASE_RESULTS else recipe.name
    results = Results(arm, recipe.seed, step, tuple(evaluations), histograms, examples, notes)
    if ranks.first:
        save_evaluation(Path(recipe.output) / f"{name}.json", results)
    tracker.evaluated(results)
    return results


def identity(recipe: Recipe, ranks: Ranks, inputs: Inputs) -> dict[str, Any]:
    """Everything that the attempts depend on: the recipe, the data and code it reads, the weights, the ranks."""
    parts = recipe.model_dump(mode="json", include={"seed", "model", "rollout", "rewards", "evaluate", "conversation"})
    return {**parts, "inputs": inputs, "weights": read_weights(recipe), "ranks": ranks.world, "format": FORMAT}


class ServedSession:
    """The session of an evaluation whose model a server holds: held-out problems and conversations."""

    def __init__(self, recipe: Recipe):
        assert recipe.evaluate is not None
        assert recipe.evaluate.endpoint is not None
        endpoint = Endpoint(recipe.evaluate.endpoint, recipe.model.path, recipe.rollout.deadline)
        self.held_out = load_held_out(recipe.evaluate.data)[: recipe.evaluate.problems]
        self.inputs = read_inputs(recipe, [], self.held_out) | {"served": endpoint.model}
        self._scorer = Scorer(recipe.rewards)
        self.held_out_rollout = EndpointRollout(recipe, recipe.held_out_conversation, endpoint, self._scorer)

    def close(self) -> None:
        self._scorer.close()


def open_tracker(recipe: Recipe, ranks: Ranks, *, resume_step: int | None, run_id: str = "") -> Tracker:
    """Writes the resolved recipe to the run's folder and opens its tracker."""
    folder = Path(recipe.output)
    if ranks.first:
        with writing(f"folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
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


def _sampled(
    mode: Mode,
    asks: Rollout | EndpointRollout,
    problems: Sequence[Problem],
    journal: Journal,
    step: int,
    on_conversation: Callable[[int], object],
) -> list[Record]:
    """The records of all conversations, grouped by problem, in the order of the problems."""
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
    """The evaluation of all ranks' records, their edit ratios, and whether votes could be counted."""
    section = recipe.held_out_conversation
    rows = gather_rows(record_rows(records, section) if records else {}, ranks)
    names = gather_list([record["problem_id"] for record in records], ranks)
    parts = gather_list([record["parts"] for record in records], ranks)
    evaluation = Evaluation.of_rows(mode.name, names, rows, seed=recipe.seed).with_parts(names, rows, parts)
    voted = True
    if mode.samples > 1:
        read = [attempt["answer"] is not None for record in records for attempt in record["attempts"]]
        answered = any(all_gather(any(read), ranks))
        groups = [records[start : start + mode.samples] for start in range(0, len(records), mode.samples)]
        each = [vote_rows(group, section.attempts) for group in groups]
        votes = gather_rows({name: np.array([row[name] for row in each]) for name in (each or [{}])[0]}, ranks)
        votes = {name: values_P for name, values_P in votes.items() if answered or not name.startswith("maj")}
        evaluation = evaluation.with_rows(names[:: mode.samples], votes, seed=recipe.seed)
        voted = answered
    return evaluation, rows.get("edit_ratio"), voted


def _examples(records: Sequence[Record]) -> list[Record]:
    """Some of the records, alternating between kinds of flips so that rare ones are included."""
    kinds: dict[str, list[Record]] = {}
    for record in records:
        kinds.setdefault(str(record["flip"]), []).append(record)
    in_turn: Iterator[Record | None] = chain.from_iterable(zip_longest(*kinds.values()))
    return [record for record in in_turn if record is not None][:EXAMPLES]

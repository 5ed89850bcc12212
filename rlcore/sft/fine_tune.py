"""A recipe with an `sft` section: supervised rounds on the policy's own corrections or on demonstrations."""

import math
import shutil
from pathlib import Path
from random import Random

from rlcore.data import ProblemOrder, rank_slice
from rlcore.errors import UserError
from rlcore.evaluate.results import Results, load_evaluation
from rlcore.files import holding, read_records, write_records
from rlcore.policy import place_policy
from rlcore.ranks import Ranks, gather_list, start_distributed
from rlcore.recipe import Recipe, load_recipe
from rlcore.recipe.compare import recipe_changes
from rlcore.recipe.schema import SftConfig
from rlcore.rollout.streaming import every, grouped
from rlcore.session.build import Session, first_policy
from rlcore.session.evaluation import evaluate_and_save, open_tracker
from rlcore.session.inputs import Changes, InputsLine, input_changes, note_changes
from rlcore.session.interrupt import Interrupt, Stopped
from rlcore.sft.corrections import column_rows, sampled_rows
from rlcore.sft.trainer import Row, SftSchedule, train_supervised
from rlcore.track import Tracker
from rlcore.train.step_metrics import check_scored
from rlcore.types import Groups, Problem, Trajectory

ROUND = "round-"
"""Names the folder of the policy that a round left, which lasts until the next one's."""
INPUTS = "inputs.json"
"""Digests of what the rounds read (`rlcore.session.inputs`)."""


def fine_tune(recipe: Recipe) -> Results | None:
    """Runs the rounds, writes the policy to `final/` and evaluates it; a run that is finished is only read.

    The policy of the last finished round lies in the folder, and a run that ended early goes on from there: rounds
    carry nothing else over. Returns the evaluation; None for a recipe without one, or when it was asked to stop. Raises
    UserError where too few conversations are worth learning, the folder holds a run of another recipe, or its data have
    changed so that the next rounds would draw other problems.
    """
    ranks = start_distributed(recipe.device)
    with holding(Path(recipe.output), ranks.first):
        return _fine_tune(recipe, ranks)


def _fine_tune(recipe: Recipe, ranks: Ranks) -> Results | None:
    assert recipe.sft
    folder, evaluated = Path(recipe.output), Path(recipe.output) / "evaluation.json"
    done, policy = _rounds_done(folder, recipe.sft.rounds)
    changes: Changes = {}
    if policy:
        changes = recipe_changes(folder, load_recipe(folder / "recipe.yaml").model_dump(mode="json"), recipe)
    if done == recipe.sft.rounds and (evaluated.exists() or recipe.evaluate is None):
        if ranks.first:
            print(f"{folder} holds a finished run, of {done} rounds: nothing is left to do")
        return load_evaluation(evaluated) if recipe.evaluate else None
    if recipe.sft.batch % ranks.world:
        raise UserError(f"sft.batch {recipe.sft.batch} does not divide evenly over {ranks.world} ranks")
    model = recipe.model.model_copy(update={"path": str(policy), "scratch": None}) if policy else recipe.model
    session = Session(recipe.model_copy(update={"model": model}), ranks)
    try:
        if policy and (folder / INPUTS).exists():
            saved = read_records(folder / INPUTS, InputsLine)
            changes |= input_changes(folder, saved[0] if saved else {}, session.inputs)
        with open_tracker(recipe, ranks, resume_step=done or None) as tracker:
            note_changes(tracker, folder, changes, done, "round")
            if ranks.first:
                write_records(folder / INPUTS, [session.inputs])
            try:
                with Interrupt(ranks) as interrupt, interrupt.nothing_to_save():
                    return _rounds(recipe, recipe.sft, session, ranks, tracker, done)
            except Stopped:
                tracker.say("stopped; the same command goes on after the last round that was finished")
                return None
    finally:
        session.close()


def _rounds(
    recipe: Recipe, section: SftConfig, session: Session, ranks: Ranks, tracker: Tracker, done: int
) -> Results | None:
    """The rounds after those that are `done`, then the evaluation."""
    folder = Path(recipe.output)
    for number in range(done, section.rounds):
        _round(recipe, section, session, ranks, tracker, number)
        if ranks.first:
            last = number + 1 == section.rounds
            place_policy(session.policy, folder / ("final" if last else f"{ROUND}{number + 1}"))
            shutil.rmtree(folder / f"{ROUND}{number}", ignore_errors=True)
    if recipe.evaluate is None:
        return None
    problems = recipe.evaluate.problems
    return evaluate_and_save(recipe, session, ranks, tracker, problems=problems, step=section.rounds)


def _rounds_done(folder: Path, rounds: int) -> tuple[int, Path | None]:
    """How many rounds are finished, and the policy that the last of them left."""
    if (folder / "final").is_dir():
        return rounds, folder / "final"
    found = {
        int(name): path for path in folder.glob(f"{ROUND}*") if (name := path.name.removeprefix(ROUND)).isdecimal()
    }
    return max(found.items(), default=(0, None))


def _round(recipe: Recipe, section: SftConfig, session: Session, ranks: Ranks, tracker: Tracker, number: int) -> None:
    """Collects rows, learns them and hands the new policy to the rollout engine."""
    order = ProblemOrder(session.problems, recipe.seed)
    count = section.problems or len(session.problems) // ranks.world * ranks.world
    problems = rank_slice(order.batch(number, count), ranks.rank, ranks.world)
    if section.rows == "column":
        conversations = len(problems)
        mine = list(column_rows(problems, session.conversation, section.column))
    else:
        conversations = len(problems) * section.samples
        groups = _sample(recipe, section, session, tracker, problems, number)
        mine = sampled_rows(groups, section, Random(f"{recipe.seed} {number} {ranks.rank}"))
    rows = gather_list(mine, ranks)
    if len(rows) < section.batch:
        raise UserError(
            f"sft: round {number + 1} found {len(rows)} conversations to learn among {conversations * ranks.world}, "
            f"fewer than sft.batch {section.batch}; sample more (sft.problems, sft.samples) or lower sft.batch"
        )
    session.rollout.engine.sleep()
    if number and section.rows != "column":
        _start_anew(recipe, session)
    loss = _learn(recipe, section, session, ranks, tracker, rows)
    session.rollout.engine.publish(session.policy.model.named_parameters(), version=number + 1)
    kept = len(rows) / (conversations * ranks.world)
    tracker.say(f"round {number + 1}: {len(rows):,} rows ({100 * kept:.1f} % of the conversations), loss {loss:.4f}")
    tracker.log(number + 1, section.rows, {"sft/rows": len(rows), "sft/kept": kept, "sft/loss": loss})


def _start_anew(recipe: Recipe, session: Session) -> None:
    """Gives the policy the weights that the run started from.

    As in STaR (Zelikman et al. 2022, section 3.1): a round's policy only samples what the next one learns.
    """
    start = first_policy(recipe, session.problems)
    session.policy.model.load_state_dict(start.model.state_dict())


def _sample(
    recipe: Recipe, section: SftConfig, session: Session, tracker: Tracker, problems: list[Problem], number: int
) -> Groups:
    """Scored conversations on the problems."""
    groups: dict[int, list[Trajectory]] = {}
    shown = tracker.progress(f"sampling for round {number + 1}", len(problems) * section.samples)
    with shown as advance, session.rollout.together():
        requests, draw = every(problems, section.samples), ("sft", number)
        ended = session.rollout.stream(requests, temperature=recipe.rollout.temperature, draw=draw)
        groups.update(grouped(ended, section.samples, advance))
    in_order = [groups[place] for place in range(len(problems))]
    check_scored(in_order, recipe.rewards.max_failed)
    return in_order


def _learn(
    recipe: Recipe, section: SftConfig, session: Session, ranks: Ranks, tracker: Tracker, rows: list[Row]
) -> float:
    """The mean loss of the epochs over the rows, so many at once as `learner.micro_batch_tokens` hold."""
    steps = math.ceil(section.epochs * len(rows) / section.batch)
    learner, per_rank = recipe.learner, section.batch // ranks.world
    fitting = learner.micro_batch_tokens // max(len(row["input_ids"]) for row in rows)
    at_once = max(
        divisor for divisor in range(1, per_rank + 1) if per_rank % divisor == 0 and divisor <= max(1, fitting)
    )
    schedule = SftSchedule(steps, section.batch, learner.lr, min(learner.warmup_steps, steps // 2), learner.decay)
    with tracker.progress(f"learning {len(rows):,} rows", steps) as advance:
        return train_supervised(
            session.policy,
            rows,
            schedule,
            Path(recipe.output),
            seed=recipe.seed,
            world=ranks.world,
            rows_at_once=at_once,
            on_step=advance,
        )

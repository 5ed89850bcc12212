"""A recipe with an `sft` section: supervised rounds on the policy's own corrections or on demonstrations."""

import math
import shutil
from contextlib import closing
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
"""Names the folder with the policy of a round, which lasts until that of the next."""
INPUTS = "inputs.json"
"""Digests of what the rounds read (`rlcore.session.inputs`)."""


def fine_tune(recipe: Recipe) -> Results | None:
    """Runs the rounds, writes the policy to `final/` and evaluates it; a finished run is only read.

    A run that ended early resumes after its last finished round, whose policy is in the folder: nothing else carries
    over. Returns the evaluation; None for a recipe without one, or when asked to stop. Raises UserError if too few
    conversations are worth learning, or if the folder holds a run of another recipe or of data in another order.
    """
    ranks = start_distributed(recipe.device, recipe.learner.deadline)
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
    with closing(Session(recipe.model_copy(update={"model": model}), ranks)) as session:
        if policy and (folder / INPUTS).exists():
            saved = read_records(folder / INPUTS, InputsLine)
            changes |= input_changes(folder, saved[0] if saved else {}, session.inputs)
        with open_tracker(recipe, ranks, resume_step=done or None) as tracker:
            note_changes(tracker, folder, changes, done, "round")
            if ranks.first:
                write_records(folder / INPUTS, [session.inputs])
            try:
                with Interrupt(ranks) as interrupt, interrupt.nothing_to_save():
                    return _Rounds(recipe, recipe.sft, session, ranks, tracker).run(done)
            except Stopped:
                tracker.say("stopped; the same command goes on after the last round that was finished")
                return None


def _rounds_done(folder: Path, rounds: int) -> tuple[int, Path | None]:
    """The number of finished rounds, and the policy of the last of them."""
    if (folder / "final").is_dir():
        return rounds, folder / "final"
    found = {
        int(name): path for path in folder.glob(f"{ROUND}*") if (name := path.name.removeprefix(ROUND)).isdecimal()
    }
    return max(found.items(), default=(0, None))


class _Rounds:
    """The rounds of a run and the evaluation after them."""

    def __init__(self, recipe: Recipe, section: SftConfig, session: Session, ranks: Ranks, tracker: Tracker):
        self._recipe, self._section, self._session = recipe, section, session
        self._ranks, self._tracker = ranks, tracker

    def run(self, done: int) -> Results | None:
        """Runs the rounds after the first `done`, then evaluates."""
        recipe, folder, rounds = self._recipe, Path(self._recipe.output), self._section.rounds
        for number in range(done, rounds):
            self._round(number)
            if self._ranks.first:
                name = "final" if number + 1 == rounds else f"{ROUND}{number + 1}"
                place_policy(self._session.policy, folder / name)
                shutil.rmtree(folder / f"{ROUND}{number}", ignore_errors=True)
        if recipe.evaluate is None:
            return None
        problems = recipe.evaluate.problems
        return evaluate_and_save(recipe, self._session, self._ranks, self._tracker, problems=problems, step=rounds)

    def _round(self, number: int) -> None:
        """Collects rows, learns them and hands the new policy to the rollout engine."""
        section, session, ranks = self._section, self._session, self._ranks
        order = ProblemOrder(session.problems, self._recipe.seed)
        count = section.problems or len(session.problems) // ranks.world * ranks.world
        problems = rank_slice(order.batch(number, count), ranks.rank, ranks.world)
        if section.rows == "column":
            conversations = len(problems)
            mine = list(column_rows(problems, session.conversation, section))
        else:
            conversations = len(problems) * section.samples
            rng = Random(f"{self._recipe.seed} {number} {ranks.rank}")
            mine = sampled_rows(self._sample(problems, number), section, rng)
        rows, conversations = gather_list(mine, ranks), conversations * ranks.world
        if len(rows) < section.batch:
            raise UserError(
                f"sft: round {number + 1} found {len(rows)} conversations to learn among {conversations}, "
                f"fewer than sft.batch {section.batch}; sample more (sft.problems, sft.samples) or lower sft.batch"
            )
        session.rollout.engine.sleep()
        if number and section.rows != "column":
            # As in STaR (Zelikman et al. 2022, section 3.1), each round learns from the policy that the run started
            # with: that of a round only samples what the next one learns.
            start = first_policy(self._recipe, session.problems)
            session.policy.model.load_state_dict(start.model.state_dict())
        loss = self._learn(rows)
        session.rollout.engine.publish(session.policy.model.named_parameters(), version=number + 1)
        kept = len(rows) / conversations
        told = f"{len(rows):,} rows ({100 * kept:.1f} % of the conversations), loss {loss:.4f}"
        self._tracker.say(f"round {number + 1}: {told}")
        self._tracker.log(number + 1, section.rows, {"sft/rows": len(rows), "sft/kept": kept, "sft/loss": loss})

    def _sample(self, problems: list[Problem], number: int) -> Groups:
        """Scored conversations on the problems."""
        rollout, samples, groups = self._session.rollout, self._section.samples, dict[int, list[Trajectory]]()
        shown = self._tracker.progress(f"sampling for round {number + 1}", len(problems) * samples)
        with shown as advance, rollout.together():
            requests, temperature = every(problems, samples), self._recipe.rollout.temperature
            ended = rollout.stream(requests, temperature=temperature, draw=("sft", number))
            groups.update(grouped(ended, samples, advance))
        in_order = [groups[place] for place in range(len(problems))]
        check_scored(in_order, self._recipe.rewards.max_failed)
        return in_order

    def _learn(self, rows: list[Row]) -> float:
        """The mean loss of the epochs over the rows, as many at once as `learner.micro_batch_tokens` hold."""
        section, learner, world = self._section, self._recipe.learner, self._ranks.world
        steps, per_rank = math.ceil(section.epochs * len(rows) / section.batch), section.batch // world
        fitting = max(1, learner.micro_batch_tokens // max(len(row["input_ids"]) for row in rows))
        at_once = max(size for size in range(1, per_rank + 1) if per_rank % size == 0 and size <= fitting)
        schedule = SftSchedule(
            steps,
            section.batch,
            learner.lr,
            min(learner.warmup_steps, steps // 2),
            learner.decay,
            learner.betas,
            learner.weight_decay,
            learner.max_grad_norm,
        )
        with self._tracker.progress(f"learning {len(rows):,} rows", steps) as advance:
            return train_supervised(
                self._session.policy,
                rows,
                schedule,
                Path(self._recipe.output),
                seed=self._recipe.seed,
                world=world,
                rows_at_once=at_once,
                on_step=advance,
            )

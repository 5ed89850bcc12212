"""A training run: a session, its learner and its folder, which are opened, saved and closed together."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor

from rlcore.credit import adapted_kl
from rlcore.errors import UserError
from rlcore.evaluate.measure import trajectory_record
from rlcore.evaluate.results import Results, load_evaluation, save_evaluation
from rlcore.learner import Learner
from rlcore.policy import check_same_parameters, parameter_shapes, place_policy
from rlcore.policy.truncation import Truncation
from rlcore.ranks import Ranks
from rlcore.recipe import Recipe
from rlcore.recipe.compare import recipe_changes
from rlcore.recipe.schema import StageConfig
from rlcore.session.build import Session
from rlcore.session.evaluation import BASE_RESULTS, LATEST_RESULTS, evaluate_and_save, open_tracker
from rlcore.session.inputs import input_changes, note_changes
from rlcore.session.interrupt import Interrupt, Stopped
from rlcore.train.ahead import Ahead
from rlcore.train.base_attempts import BaseAttempts
from rlcore.train.checkpoints import Checkpoints, read_state
from rlcore.train.collect import Collector
from rlcore.train.ledger import Ledger
from rlcore.train.made_of import made_of, runs_of
from rlcore.train.step_metrics import TooManyUnscored, distributions
from rlcore.types import Groups
from rlcore.watchdog import enter_phase


class Run:
    """The state of one run in its folder; a context manager that ends its workers and writers."""

    def __init__(self, recipe: Recipe, ranks: Ranks):
        """Raises UserError, before anything in the folder is changed, if the recipe cannot run here."""
        self.recipe, self.ranks = recipe, ranks
        self.folder = Path(recipe.output)
        if recipe.batch.problems % ranks.world:
            raise UserError(f"batch.problems {recipe.batch.problems} does not divide evenly over {ranks.world} ranks")
        enter_phase("starting")
        self._checkpoints = Checkpoints(self.folder / "checkpoints", recipe.checkpoint, ranks)
        checkpoint, damaged = self._checkpoints.newest()
        state = read_state(checkpoint) if checkpoint else {}
        changes = recipe_changes(self.folder, state["recipe"], recipe, state["step"]) if state else {}
        self.step, self.best, self.base_t1 = 0, float("-inf"), float("nan")
        self._saved = 0
        self._best_step: int | None = None
        self._rewards: list[float] = []
        self.interrupt = Interrupt(ranks)
        self._kl: list[float] = []
        self._measured_kl: list[float | None] = []
        with ExitStack() as opened:  # what is open when the next thing fails is closed
            self._session = opened.enter_context(closing(Session(recipe, ranks)))
            self.rollout = self._session.rollout
            changes |= input_changes(self.folder, state.get("inputs", {}), self._session.inputs)
            self.learner = opened.enter_context(closing(self._new_learner()))
            if checkpoint:
                self._resume(checkpoint, state)
            self._resumed_at = self.step if checkpoint else None
            self._made_of = made_of(recipe, self._session.inputs, self.step, state.get("updates_made_of", []))
            self.tracker = opened.enter_context(
                open_tracker(recipe, ranks, resume_step=self._resumed_at, run_id=state.get("run_id", ""))
            )
            self._known = self._known_results()
            if self._known and changes:
                self.tracker.say(
                    f"a finished run and its evaluation stay as they are, whatever else is in the recipe "
                    f"({', '.join(changes)}): `rlcore eval {self.folder} KEY=VALUE` measures it under other settings"
                )
            else:
                note_changes(self.tracker, self.folder, changes, self.step, "step")
            for note in damaged:
                self.tracker.say(note)
            self._open = opened.pop_all()

    def __enter__(self) -> "Run":
        self._open.enter_context(self.interrupt)
        self._open.callback(enter_phase, "")
        self._open.push(self._keep)
        return self

    def __exit__(self, *raised: Any) -> bool | None:
        return self._open.__exit__(*raised)

    def collector(self) -> Collector:
        """Samples this run's steps."""
        base = BaseAttempts(
            self.folder, self.rollout, self.ranks, self.tracker.progress, resumed=self._resumed_at is not None
        )
        recipe, problems = self.recipe, self._session.problems
        with self.interrupt.nothing_to_save():
            if not recipe.batch.ahead:
                return Collector(recipe, self.ranks, self.rollout, problems, base)
            ledger = Ledger(self.folder / "ledger", self.ranks, self._made_of, recipe.batch.problems)
            if note := ledger.passed_over(self.step):
                self.tracker.say(note)
            ahead = Ahead(recipe, self.ranks, self.rollout, problems, base, ledger, self._checkpoints.oldest)
            return self._open.enter_context(closing(ahead))

    def measure_base(self, known: Results | None) -> None:
        """Evaluates the policy before its first step, unless that is known: sandbagging is measured against it.

        But only against what is sampled as training samples: greedy attempts, say, are better.
        """
        if self.step or not self.recipe.evaluate:
            return
        if known and self.ranks.first:
            save_evaluation(self.folder / f"{BASE_RESULTS}.json", known)
            self.tracker.evaluated(known)
        with self.interrupt.nothing_to_save():
            results = known or self._evaluate(self.recipe.evaluate.problems, BASE_RESULTS, self.step)
        if self.recipe.evaluate.temperature == self.recipe.rollout.temperature:
            sampled = (part.metrics["t1"][0] for part in results.evaluations if part.mode == "sampled")
            self.base_t1 = next(sampled, self.base_t1)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weights to publish: all of the policy's, or its adapters alone."""
        return self.learner.adapters() if self.recipe.adapters_apart else self.learner.weights()

    def steps(self) -> Iterator[tuple[int, StageConfig]]:
        """The numbers of the steps left, with their stage and its present β. Saves where the recipe says so."""
        stages = [(stage, step) for stage in self.recipe.stages for step in range(stage.steps)]
        while self.step < len(stages):
            stage, step_of_stage = stages[self.step]
            self._kl = self._beta(stage, step_of_stage)
            yield self.step, stage.model_copy(update={"kl": self._kl})
            if stage.kl_target:
                self._kl = adapted_kl(self._kl, stage.kl, stage.kl_target, self._measured_kl)
            self.step += 1
            if self.interrupt.requested():
                raise Stopped
            if self._save_is_due():
                self._save()

    def _beta(self, stage: StageConfig, step_of_stage: int) -> list[float]:
        """β of each attempt: the stage's, or what it has been adapted to since the stage's first step."""
        targets = stage.kl_target if step_of_stage else []
        rows = zip_longest(stage.kl, self._kl, targets, fillvalue=0.0)
        return [now if target else start for start, now, target in rows]

    def record(self, stage: StageConfig, groups: Groups, metrics: dict[str, float]) -> None:
        """Records a step, after an evaluation if the recipe asks for one."""
        step, section = self.step + 1, self.recipe.evaluate
        self._rewards.append(metrics["train/reward"])
        if section and section.every and step % section.every == 0 and step < self.recipe.steps:
            results = self._evaluate(section.problems_while_training, LATEST_RESULTS, step)
            metrics |= {name: value for part in results.evaluations for name, value in part.values.items()}
        attempts = range(1, self.recipe.conversation.attempts + 1)
        self._measured_kl = [metrics.get(f"learner/kl_t{attempt}") for attempt in attempts]
        if stage.kl_target:
            metrics |= {f"train/beta_t{attempt}": stage.kl[attempt - 1] for attempt in attempts}
        self.tracker.log(step, stage.name, metrics)
        flat, wanted = [trajectory for group in groups for trajectory in group], self.recipe.track.trajectories
        shown = flat[:: max(1, len(flat) // max(1, wanted))][:wanted]
        self.tracker.trajectories(step, stage.name, [trajectory_record(t, step=step, stage=stage.name) for t in shown])
        if self.tracker.details_due(step):
            self.tracker.distributions(step, distributions(flat, self.recipe.conversation))

    def finish(self) -> Results | None:
        """Writes the final policy and evaluates it. None if the run stopped before its end or has no evaluation."""
        if self.step < self.recipe.steps:
            return None
        if self._resumed_at == self.step:
            self.tracker.say(f"{self.folder} holds a finished run, of {self.step} steps: nothing is left to train")
        if self._known:
            return self._known
        if self.recipe.checkpoint.final == "best" and self._best_step not in (None, self.step):
            self._return_to_best()
        self._export("final")
        if not self.recipe.evaluate:
            return None
        with self.interrupt.nothing_to_save():
            return self._evaluate(self.recipe.evaluate.problems, "evaluation", self.step)

    def _known_results(self) -> Results | None:
        """The evaluation of the last policy, where the folder holds both."""
        done = self.folder / "evaluation.json"
        if self._resumed_at != self.recipe.steps or not (self.folder / "final").exists() or not done.exists():
            return None
        results = load_evaluation(done)
        return results if results.step == self.step else None  # of this policy: `final` was written before

    def _return_to_best(self) -> None:
        """Loads the checkpoint with the highest training reward, the one whose results SCoRe reports."""
        assert self._best_step is not None
        self._checkpoints.load_best(self._best_step, self.learner)
        self.rollout.engine.publish(self.weights(), self.step + 1)  # caches tell weights by their version
        self.tracker.say(f"the run ends with the policy after step {self._best_step}: the highest training reward")

    def _evaluate(self, problems: int, name: str, step: int) -> Results:
        enter_phase(f"evaluation after step {step}")
        return evaluate_and_save(
            self.recipe, self._session, self.ranks, self.tracker, problems=problems, step=step, name=name
        )

    def _keep(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Saves a run that ends early but whole. Returns whether it was asked to stop, which is no failure."""
        stopped = isinstance(error, Stopped)
        if stopped or isinstance(error, TooManyUnscored):
            self._save()
        if stopped and self.step:
            self.tracker.say(f"stopped after step {self.step} and saved; the same command goes on from there")
        elif stopped:
            self.tracker.say("stopped before the first step, with nothing to save; the same command begins anew")
        return stopped

    def _save_is_due(self) -> bool:
        every = self.recipe.checkpoint.every
        return self.step == self.recipe.steps or (every > 0 and self.step % every == 0)

    def _save(self) -> None:
        """Writes a checkpoint, if this step has none; also `best/`, where the recipe asks for this save."""
        if self.step == self._saved:
            return
        enter_phase(f"saving step {self.step}")
        if self._save_is_due():
            self._compare_with_best()
        state = {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.step,  # fixes the stage, the problems that come next and the sampler's random numbers
            "best": self.best,
            "best_step": self._best_step,
            "rewards": self._rewards,
            "base_t1": self.base_t1,
            "run_id": self.tracker.run_id,
            "kl": self._kl,
            "inputs": self._session.inputs,
            "updates_made_of": runs_of(self._made_of.updates),
            "parameters": parameter_shapes(self.learner.module),
        }
        for note in self._checkpoints.save(self.step, self.learner, state, self._best_step):
            self.tracker.say(note)
        self._saved = self.step

    def _compare_with_best(self) -> None:
        """Writes `best/` if the mean reward since the last save that was due is the highest so far."""
        reward, self._rewards = sum(self._rewards) / len(self._rewards), []
        if reward > self.best:
            self.best, self._best_step = reward, self.step
            self._export("best")

    def _export(self, name: str) -> None:
        """Writes the policy as a plain Hugging Face folder. All ranks take part: ZeRO-3 splits the weights."""
        weights = self.learner.whole_weights()
        if self.ranks.first:
            place_policy(self._session.policy, self.folder / name, weights)

    def _new_learner(self) -> Learner:
        recipe = self.recipe
        return Learner(
            recipe.learning,
            self._session.policy.model,
            temperature=recipe.rollout.temperature,
            kl_used=any(any(stage.kl) for stage in recipe.stages),
            total_steps=recipe.steps * recipe.learner.optimizer_steps,
            seed=recipe.seed,
            device=self.ranks.device,
            lora=recipe.model.lora,
            exact_sampler=recipe.exact_sampler,
            truncation=Truncation.of(recipe.rollout),
            max_sampled_tokens=recipe.conversation.replies * recipe.conversation.max_attempt_tokens,
        )

    def _resume(self, checkpoint: Path, state: dict[str, Any]) -> None:
        told = "has another tokenizer: that of a scratch model is made from the data, which have changed"
        told = told if self.recipe.model.scratch else "is of another model"
        check_same_parameters(self.learner.module, state["parameters"], f"{checkpoint} {told}")
        self._checkpoints.load(checkpoint, self.learner)
        self.step, self.best, self.base_t1 = state["step"], state["best"], state["base_t1"]
        self._best_step, self._rewards, self._saved = state["best_step"], state.get("rewards", []), self.step
        self._kl = state["kl"]
        self.rollout.engine.publish(self.weights(), self.step)

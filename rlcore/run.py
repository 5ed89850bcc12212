"""A training run: a setup, its learner and its folder, opened together, saved together and closed together."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import yaml

from rlcore.data import ProblemOrder
from rlcore.evaluate.measure import trajectory_record
from rlcore.evaluate.results import Results, load_evaluation
from rlcore.evaluation import BASE, evaluate_and_save, open_tracker
from rlcore.interrupt import Interrupt
from rlcore.learner import Learner, Ranks
from rlcore.learner.checkpoints import LEARNER, Checkpoints
from rlcore.measure_step import distributions
from rlcore.policy import check_same_parameters, parameter_shapes, save_policy
from rlcore.recipe import Recipe, dump_recipe
from rlcore.recipe.schema import Stage
from rlcore.setup import Setup
from rlcore.types import Groups, UserError

FREE_KEYS = ("output", "track", "checkpoint", "device")
"""What a run may change when it goes on: nothing that its figures depend on."""


class Run:
    """The state of one run in its folder; a context manager that ends its workers and writers."""

    def __init__(self, recipe: Recipe, ranks: Ranks):
        """Raises UserError for what the recipe's author has to mend, before anything in the folder is changed."""
        self.recipe, self.ranks = recipe, ranks
        self.folder = Path(recipe.output)
        if recipe.batch.problems % ranks.world:
            raise UserError(f"batch.problems {recipe.batch.problems} does not divide evenly over {ranks.world} ranks")
        self._checkpoints = Checkpoints(self.folder / "checkpoints", ranks)
        checkpoint = self._checkpoint_to_resume()
        self._setup = Setup(recipe, ranks)
        self.rollout = self._setup.rollout
        self.order = ProblemOrder(self._setup.problems, recipe.seed)
        self.learner = Learner(
            recipe.learner,
            self._setup.policy.model,
            temperature=recipe.rollout.temperature,
            kl_used=any(any(stage.kl) for stage in recipe.stages),
            total_steps=recipe.steps * recipe.learner.optimizer_steps,
            seed=recipe.seed,
            exact_sampler=recipe.exact_sampler,
            max_sampled_tokens=recipe.conversation.replies * recipe.conversation.max_attempt_tokens,
        )
        self.step, self.best, self.base_t1 = 0, float("-inf"), float("nan")
        self._rewards: list[float] = []
        if checkpoint:
            self._resume(checkpoint)
        self._resumed = checkpoint is not None
        self.tracker = open_tracker(recipe, ranks, resume_step=self.step if checkpoint else None)
        for difference in self._setup.conversation.check.differences:
            self.tracker.say(f"chat template, {difference}")

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tracker.close(failed=kind is not None)
        self._setup.close()
        self.learner.close()

    def measure_base(self) -> None:
        """Evaluates the policy before its first step: what sandbagging is measured against."""
        if self.step == 0 and self.recipe.evaluate:
            results = self._evaluate(self.recipe.evaluate.problems, BASE, self.step)
            self.base_t1 = results.evaluations[-1].metrics["t1"][0]

    def steps(self) -> Iterator[tuple[int, Stage]]:
        """Step numbers, from the one to go on at, with their stage. Ends early, saved, on Ctrl-C or SIGTERM."""
        stages = [stage for stage in self.recipe.stages for _ in range(stage.steps)]
        every = self.recipe.checkpoint.every
        with Interrupt(self.ranks) as interrupt:
            while self.step < len(stages):
                yield self.step, stages[self.step]
                self.step += 1
                stopped = interrupt.requested()
                if stopped or self.step == len(stages) or (every and self.step % every == 0):
                    self._save()
                if stopped:
                    self.tracker.say(f"stopped after step {self.step} and saved; the same command goes on from there")
                    return

    def record(self, stage: Stage, groups: Groups, metrics: dict[str, float]) -> None:
        """Writes down a step, with an evaluation where the recipe asks for one."""
        step, section = self.step + 1, self.recipe.evaluate
        self._rewards.append(metrics["train/reward"])
        if section and section.every and step % section.every == 0 and step < self.recipe.steps:
            results = self._evaluate(section.problems_while_training, "evaluation_latest", step)
            metrics |= {name: value for part in results.evaluations for name, value in part.values.items()}
        self.tracker.log(step, stage.name, metrics)
        flat, wanted = [trajectory for group in groups for trajectory in group], self.recipe.track.trajectories
        shown = flat[:: max(1, len(flat) // max(1, wanted))][:wanted]
        self.tracker.trajectories(step, stage.name, [trajectory_record(t, step=step, stage=stage.name) for t in shown])
        if self.tracker.details_due(step):
            self.tracker.distributions(step, distributions(flat, self.recipe.conversation))

    def finish(self) -> Results | None:
        """The policy and its evaluation at the end; None where the run stopped before it or has no evaluation."""
        if self.step < self.recipe.steps:
            return None
        self._export("final")
        if not self.recipe.evaluate:
            return None
        done = self.folder / "evaluation.json"
        if self._resumed and done.exists() and load_evaluation(done).step == self.step:
            return load_evaluation(done)
        return self._evaluate(self.recipe.evaluate.problems, "evaluation", self.step)

    def _evaluate(self, problems: int, name: str, step: int) -> Results:
        return evaluate_and_save(
            self.recipe, self._setup, self.ranks, self.tracker, problems=problems, step=step, name=name
        )

    def _save(self) -> None:
        """Writes a checkpoint; `best/` too when the mean reward since the one before is the highest so far."""
        if self._rewards and (reward := sum(self._rewards) / len(self._rewards)) > self.best:
            self.best = reward
            self._export("best")
        self._rewards = []
        state = {
            "step": self.step,
            "best": self.best,
            "base_t1": self.base_t1,
            "parameters": parameter_shapes(self.learner.module),
        }
        self._checkpoints.save(self.step, self.learner, state)

    def _export(self, name: str) -> None:
        """Writes the policy as a plain Hugging Face folder. All ranks take part: ZeRO-3 splits the weights."""
        weights = self.learner.whole_weights()
        if self.ranks.first:
            save_policy(self._setup.policy, self.folder / name, weights)

    def _checkpoint_to_resume(self) -> Path | None:
        """The checkpoint to go on from; UserError when the folder holds a run of another recipe."""
        checkpoint = self._checkpoints.newest()
        if checkpoint is None:
            return None
        if self.recipe.checkpoint.resume == "never":
            raise UserError(f"{self.folder} holds a run: give another output, or checkpoint.resume=auto to go on")
        saved = yaml.safe_load((self.folder / "recipe.yaml").read_text())
        mine = yaml.safe_load(dump_recipe(self.recipe))
        different = [key for key in _differences(saved, mine) if key.split(".")[0] not in FREE_KEYS]
        if different:
            raise UserError(
                f"{self.folder} holds a run of another recipe ({', '.join(different[:3])} differ): give another "
                "output, or remove the folder"
            )
        return checkpoint

    def _resume(self, checkpoint: Path) -> None:
        state = self._checkpoints.state(checkpoint)
        check_same_parameters(self.learner.module, state["parameters"], str(checkpoint))
        self.learner.load(checkpoint / LEARNER)
        self.step, self.best, self.base_t1 = state["step"], state["best"], state["base_t1"]
        self.rollout.engine.publish(self.learner.weights(), self.step)


def _differences(saved: object, mine: object, at: str = "") -> list[str]:
    """Dotted keys whose values differ."""
    if isinstance(saved, dict) and isinstance(mine, dict):
        keys = [*saved, *(key for key in mine if key not in saved)]
        return [d for key in keys for d in _differences(saved.get(key), mine.get(key), f"{at}.{key}" if at else key)]
    return [] if saved == mine else [at]

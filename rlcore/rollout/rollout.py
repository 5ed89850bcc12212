"""The rollout side of a run: problems in, scored groups of trajectories out."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

from rlcore.policy.truncation import Truncation
from rlcore.recipe import Recipe
from rlcore.rollout.conversation import Conversation
from rlcore.rollout.engine import RolloutEngine, Sampling
from rlcore.rollout.episodes import sample_groups
from rlcore.rollout.sampling import mixed_seed
from rlcore.rollout.scoring import Scorer
from rlcore.types import Groups, Problem, Turn


class Rollout:
    """An engine, the conversation it holds and the rewards that judge it."""

    def __init__(self, recipe: Recipe, engine: RolloutEngine, conversation: Conversation, scorer: Scorer):
        self.engine = engine
        self._recipe = recipe
        self._conversation = conversation
        self._scorer = scorer

    def together(self) -> AbstractContextManager[None]:
        """Around all attempts of a phase, before ranks meet elsewhere: those that share an engine leave it together."""
        return self.engine.together()

    def attempts(
        self,
        problems: Sequence[Problem],
        *,
        group: int,
        temperature: float,
        draw: tuple[str | int, ...],
        branches: int = 1,
        firsts: Sequence[Sequence[Turn]] = (),
    ) -> Groups:
        """`group` scored trajectories of each problem, of which every `branches` share a first attempt.

        `firsts` are first attempts of each problem that are there already. The same `draw` names the same random
        numbers.
        """
        self.engine.seed(mixed_seed(self._recipe.seed, *draw))
        groups = sample_groups(
            self.engine,
            self._conversation,
            problems,
            group,
            self._sampling(temperature),
            deadline=self._recipe.rollout.deadline,
            branches=branches,
            firsts=firsts,
            on_attempt=self._scorer.start,
        )
        return self._scorer.score(groups)

    def reward_counts(self) -> Counter[str]:
        """What the rewards have counted on this rank since the last call, as REWARD/COUNTER."""
        return self._scorer.counts()

    def first_attempts(
        self, problems: Sequence[Problem], count: int, *, draw: tuple[str | int, ...]
    ) -> list[list[Turn]]:
        """`count` first attempts at each problem, not scored."""
        section = self._recipe.conversation.model_copy(update={"kind": "correct", "attempts": 1})
        alone = Conversation(self._conversation.tokenizer, section, list(self._conversation.stop_ids))
        self.engine.seed(mixed_seed(self._recipe.seed, *draw))
        sampling = self._sampling(self._recipe.rollout.temperature)
        deadline = self._recipe.rollout.deadline
        groups = sample_groups(self.engine, alone, problems, count, sampling, deadline=deadline)
        return [[trajectory.turns[0] for trajectory in group] for group in groups]

    def first_turn(self, problem: Problem, ids: Sequence[int], finish: Literal["stop", "length"]) -> Turn:
        """A first attempt that was sampled before, as context: its log-probabilities are not known (0)."""
        text = self._conversation.text(ids)
        prompt = self._conversation.open(problem)
        return Turn(prompt, tuple(ids), (0.0,) * len(ids), finish, text, (0,) * len(ids), trained=False)

    def _sampling(self, temperature: float) -> Sampling:
        truncation = Truncation.of(self._recipe.rollout)
        return Sampling(self._conversation.max_attempt_tokens, temperature, truncation)

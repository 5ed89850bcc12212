"""The rollout side of a run: problems in, scored groups of trajectories out."""

from collections.abc import Sequence

from rlcore.recipe import Recipe
from rlcore.rollout.conversation import Conversation
from rlcore.rollout.engine import RolloutEngine, Sampling
from rlcore.rollout.episodes import sample_groups
from rlcore.rollout.sampling import mixed_seed
from rlcore.rollout.scoring import Scorer
from rlcore.types import Groups, Problem


class Rollout:
    """An engine, the conversation it holds and the rewards that judge it."""

    def __init__(self, recipe: Recipe, engine: RolloutEngine, conversation: Conversation, scorer: Scorer):
        self.engine = engine
        self._recipe = recipe
        self._conversation = conversation
        self._scorer = scorer

    def attempts(
        self,
        problems: Sequence[Problem],
        *,
        group: int,
        temperature: float,
        draw: tuple[str | int, ...],
        branches: int = 1,
    ) -> Groups:
        """`group` scored trajectories of each problem, of which every `branches` share a first attempt.

        The same `draw` names the same random numbers.
        """
        settings = self._recipe.rollout
        sampling = Sampling(self._conversation.max_attempt_tokens, temperature, settings.top_p, settings.top_k)
        self.engine.seed(mixed_seed(self._recipe.seed, *draw))
        groups = sample_groups(
            self.engine,
            self._conversation,
            problems,
            group,
            sampling,
            deadline=settings.deadline,
            branches=branches,
            on_attempt=self._scorer.start,
        )
        return self._scorer.score(groups)

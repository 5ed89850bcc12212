"""The open lists: the form of each entry, with the facts that it states about itself, and where the entries are.

The recipe asks entries for their facts; what uses an entry takes it from here by the name in the recipe.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from rlcore.registry import Registry
from rlcore.types import Problem, Role, Turn

Surrogate = Callable[..., tuple[Any, Any]]
"""From tensors `logprob_n`, `log_ratio_n`, `advantage_n` and a clip `(low, high)` to the loss of each token, and
whether the clip changed its gradient (bool)."""
KlEstimator = Callable[[Any, Any], Any]
"""From the log-probabilities of sampled tokens under policy and reference, two tensors `[n]`, to the KL of each."""

Scores = Callable[[list[Any]], list[Any]]
"""From scored groups (`rlcore.types.Groups`) to the same with the verdicts that training is to go by."""

Row = dict[str, Any]
"""Of a data set, by column."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A surrogate with the settings it was published with. It can be called as its surrogate is."""

    surrogate: str | Surrogate
    """A name of `SURROGATES`, or the function."""
    ratio: Literal["token", "attempt"] = "token"
    clip: tuple[float, float] = (0.2, 0.2)
    average: Literal["token", "attempt", "constant"] = "token"
    source: str = ""
    """Where it was published."""

    def settings(self, name: str) -> dict[str, Any]:
        """Values of the keys beside `learner.loss: name`."""
        surrogate = self.surrogate if isinstance(self.surrogate, str) else name
        return {"ratio": self.ratio, "surrogate": surrogate, "clip": self.clip, "average": self.average}

    def __call__(self, *arguments: Any) -> tuple[Any, Any]:
        function = SURROGATES[self.surrogate] if isinstance(self.surrogate, str) else self.surrogate
        return function(*arguments)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Compared with the returns of turns. P problems, G trajectories of each, T turns."""

    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """From returns `[P, G, T]` of the whole batch (NaN: none) and classes to the baseline, `[P, G, T]`."""
    classes: Callable[[Any], np.ndarray] | None = None
    """From this rank's `rlcore.credit.Turns` to what a turn must share with its peers, `[P, G, T]`; None: all are 0."""
    compares: bool = True
    """Whether it needs a group of more than one trajectory."""
    within_group: bool = False
    """Whether a group of equal returns has no advantages, so that `batch.resample` may replace it."""
    needs_branches: bool = False
    """Whether it compares trajectories that share a first attempt."""
    biased_by_stops: bool = False
    """Whether it shrinks the advantages of turns that few conversations reach, so that it is refused where the policy
    may end them."""


class Ask(Protocol):
    """Puts a user message before the policy and waits for its reply."""

    async def __call__(
        self,
        message: str | None,
        role: Role | Callable[[str], Role] = "attempt",
        *,
        claim: Callable[[str], bool | None] | None = None,
        last: bool = False,
    ) -> Turn:
        """The reply to `message`; None is the problem itself. `role` and `claim` may be read from the reply's text.

        `last` promises that nothing is asked after it.
        """


@dataclass(frozen=True, slots=True)
class Script:
    """The part of a recipe that a kind reads: the most attempts, and the messages between them."""

    attempts: int
    instruction: str
    review: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of conversation: a coroutine that asks the policy, turn by turn, until the conversation has ended."""

    run: Callable[[Problem, Ask, Script], Awaitable[None]]
    review: str = ""
    """Its own text for `conversation.review`."""
    between: int = 0
    """Replies between an attempt and the next: a critique or a verdict is one."""
    may_end: bool = False
    """Whether what the policy says may end a conversation before its last attempt."""
    judges: bool = False
    """Whether the policy gives verdicts on its own attempts."""
    writes: bool = False
    """Whether it writes messages of its own, which may be longer than those of the recipe."""
    refusal: Callable[[Problem], str] = lambda problem: ""
    """Why it cannot take a problem; empty where it can."""

    def replies(self, attempts: int) -> int:
        """The most replies of a conversation of so many attempts."""
        return attempts + self.between * (attempts - 1)


@dataclass(frozen=True)
class Source:
    """The form of a data set: where its text and gold answers stand, and where the hub keeps it."""

    text: str
    """Column of the problem's text."""
    gold: tuple[str, ...] = ()
    """Columns that every row must have for the rewards."""
    id: str = "id"
    """Column of the row's own id; the id is a hash of the text where there is none."""
    domain: str = "math"
    hub: str | None = None
    """Hub name, used when the recipe gives no path."""
    subset: str | None = None
    """Configuration of the hub data set."""
    complete: Callable[[Row], Row] | None = None
    """Adds columns that follow from others."""
    in_split: Callable[[Row, str], bool] | None = None
    """Whether a row belongs to a split, for files that hold all splits."""
    ask: Callable[[Row], str] | None = None
    """The question put to the policy, where it is more than the text."""
    read: Callable[[str, str | None, str, Any], Any] | None = None
    """From path, subset, split and `rlcore.data.bad_rows.BadRows` to an `rlcore.data.table.Table`; None: by the path's
    suffix."""
    make: Callable[[dict[str, Any], str], Any] | None = None
    """From `data.options` and split to a `Table`, for a source that makes its problems."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A rollout engine: what samples attempts (see `rlcore.rollout.RolloutEngine`)."""

    start: Callable[..., Any]
    """Called as `start(recipe, policy, device=..., max_tokens=...)` on every rank: the engine, with the policy's
    weights. `max_tokens`: of the longest conversation."""
    weights: Literal["learner", "device", "elsewhere"] = "elsewhere"
    """Where the weights are that it samples from: the learner's own model, a copy in a share of the learner's device
    (`rollout.vllm.gpu_memory_utilization`), or other processes and devices."""
    exact: bool = False
    """Whether, in float32, its log-probabilities are the learner's but for rounding."""
    takes_adapters: bool = False
    """Whether it can be given LoRA adapters as they are; else they are published merged into the weights."""
    servers: "Engine | None" = None
    """The engine of `rollout.mode: servers`, if it can be shared by all ranks."""


LOSSES: Registry[Loss] = Registry(
    "loss",
    Loss,
    {
        "grpo": "rlcore.recipe.losses:GRPO",
        "dr_grpo": "rlcore.recipe.losses:DR_GRPO",
        "dapo": "rlcore.recipe.losses:DAPO",
        "gspo": "rlcore.recipe.losses:GSPO",
        "cispo": "rlcore.recipe.losses:CISPO",
        "sapo": "rlcore.recipe.losses:SAPO",
        "reinforce": "rlcore.recipe.losses:REINFORCE",
    },
)
SURROGATES: Registry[Surrogate] = Registry(
    "surrogate",
    Callable,
    {
        "ppo": "rlcore.learner.loss.losses:ppo",
        "cispo": "rlcore.learner.loss.losses:cispo",
        "sapo": "rlcore.learner.loss.losses:sapo",
        "reinforce": "rlcore.learner.loss.losses:reinforce",
    },
)
KL_ESTIMATORS: Registry[KlEstimator] = Registry(
    "KL estimator",
    Callable,
    {
        "exact": "rlcore.learner.loss.losses:kl_exact",
        "k1": "rlcore.learner.loss.losses:kl_k1",
        "k2": "rlcore.learner.loss.losses:kl_k2",
        "k3": "rlcore.learner.loss.losses:kl_k3",
        "reward": "rlcore.learner.loss.losses:kl_reward",
    },
)
SCORES: Registry[Scores] = Registry(
    "score of attempts",
    Callable,
    {"rewards": "rlcore.credit.scores:by_rewards", "majority": "rlcore.credit.scores:by_majority"},
)
BASELINES: Registry[Baseline] = Registry(
    "baseline",
    Baseline,
    {
        "group": "rlcore.credit.baselines:GROUP",
        "leave_one_out": "rlcore.credit.baselines:LEAVE_ONE_OUT",
        "tree": "rlcore.credit.baselines:TREE",
        "outcome": "rlcore.credit.baselines:OUTCOME",
        "batch_outcome": "rlcore.credit.baselines:BATCH_OUTCOME",
        "batch": "rlcore.credit.baselines:BATCH",
        "none": "rlcore.credit.baselines:NONE",
    },
)
KINDS: Registry[Kind] = Registry(
    "kind of conversation",
    Kind,
    {
        "correct": "rlcore.kinds.correct:CORRECT",
        "critique": "rlcore.kinds.critique:CRITIQUE",
        "verify": "rlcore.kinds.verify:VERIFY",
        "feedback": "rlcore.kinds.feedback:FEEDBACK",
        "stop": "rlcore.kinds.stop:STOP",
        "think_if_symbols": "rlcore.kinds.think:IF_SYMBOLS",
        "think_if_unsure": "rlcore.kinds.think:IF_UNSURE",
        "iterate": "rlcore.kinds.iterate:ITERATE",
        "iterate_guided": "rlcore.kinds.iterate:ITERATE_GUIDED",
        "diagram": "rlcore.kinds.diagram:DIAGRAM",
    },
)
SOURCES: Registry[Source] = Registry(
    "source",
    Source,
    {
        "arithmetic": "rlcore.data.sources.arithmetic:ARITHMETIC",
        "gsm8k": "rlcore.data.sources.gsm8k:GSM8K",
        "math": "rlcore.data.sources.math:MATH",
        "mbpp": "rlcore.data.sources.mbpp:MBPP",
        "humaneval": "rlcore.data.sources.humaneval:HUMANEVAL",
        "reasoning_gym": "rlcore.data.sources.reasoning_gym:REASONING_GYM",
        "arc": "rlcore.data.sources.arc:ARC",
        "grids": "rlcore.data.sources.grids:GRIDS",
        "examples": "rlcore.data.sources.examples:EXAMPLES",
        "jsonl": "rlcore.data.sources.generic:JSONL",
        "parquet": "rlcore.data.sources.generic:PARQUET",
        "hub": "rlcore.data.sources.generic:HUB",
    },
)
ENGINES: Registry[Engine] = Registry(
    "engine",
    Engine,
    {"torch": "rlcore.session.engines:TORCH", "vllm": "rlcore.session.engines:VLLM"},
)

"""The open lists: the form of their entries, with the facts that each states about itself, and the entries by name."""

from collections.abc import Awaitable, Callable, Sequence
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
"""From scored groups (`rlcore.types.Groups`) to the same groups with the verdicts that training goes by."""
Row = dict[str, Any]
"""A row of a data set, by column."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A surrogate with its published settings. Calling it calls the surrogate."""

    surrogate: str | Surrogate
    """A name of `SURROGATES`, or the function."""
    ratio: Literal["token", "attempt"] = "token"
    clip: tuple[float, float] = (0.2, 0.2)
    average: Literal["token", "attempt", "constant"] = "token"
    source: str = ""
    """Where it was published."""

    def settings(self, name: str) -> dict[str, Any]:
        """The values of the other keys under `learner.loss: name`."""
        surrogate = self.surrogate if isinstance(self.surrogate, str) else name
        return {"ratio": self.ratio, "surrogate": surrogate, "clip": self.clip, "average": self.average}

    def __call__(self, *arguments: Any) -> tuple[Any, Any]:
        function = SURROGATES[self.surrogate] if isinstance(self.surrogate, str) else self.surrogate
        return function(*arguments)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline of returns: P problems, G trajectories of each, T turns."""

    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """Returns `[P, G, T]` of the whole batch (NaN: none) and classes to baselines `[P, G, T]`."""
    classes: Callable[[Any], np.ndarray] | None = None
    """This rank's `rlcore.credit.Turns` to the class of each turn, `[P, G, T]`, equal for peers; None: all 0."""
    compares: bool = True
    """Whether it needs a group of more than one trajectory."""
    within_group: bool = False
    """Whether a group of equal returns has no advantages, so that `batch.resample` may replace it."""
    needs_branches: bool = False
    """Whether it compares trajectories with the same first attempt."""
    biased_by_stops: bool = False
    """Whether it shrinks advantages of turns that few conversations reach: refused where the policy may end them."""


class Ask(Protocol):
    """Sends a user message to the policy and awaits its reply."""

    async def __call__(
        self,
        message: str | None,
        role: Role | Callable[[str], Role] = "attempt",
        *,
        claim: Callable[[str], bool | None] | None = None,
        last: bool = False,
    ) -> Turn:
        """The reply to `message`, or to the problem for None. `role` and `claim` may depend on the reply's text.

        `last` promises that no further message follows.
        """


@dataclass(frozen=True, slots=True)
class Script:
    """The part of a recipe that a kind reads: the maximum of attempts, and the messages between them."""

    attempts: int
    instruction: str
    review: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of conversation: a coroutine that asks the policy, turn by turn, until the conversation ends."""

    run: Callable[[Problem, Ask, Script], Awaitable[None]]
    review: str = ""
    """The default of `conversation.review`."""
    between: int = 0
    """Replies between two attempts, such as a critique or a verdict."""
    may_end: bool = False
    """Whether a reply may end a conversation before its last attempt."""
    reviews: bool = False
    """Whether the policy writes critiques of its own attempts, which a stage may train alone."""
    judges: bool = False
    """Whether the policy gives verdicts on its own attempts."""
    writes: bool = False
    """Whether it writes messages of its own, which may be longer than the recipe's."""
    says: Callable[[int], Sequence[str]] = lambda attempts: ()
    """Texts of its own, beside the recipe's, that it may put in a conversation of so many attempts."""
    quotes: bool = False
    """Whether its messages are at most a reply of the policy before one of the recipe's."""
    refusal: Callable[[Problem], str] = lambda problem: ""
    """Why a problem is unsuitable; empty if it is suitable."""

    def replies(self, attempts: int) -> int:
        """The maximum of replies in a conversation of so many attempts."""
        return attempts + self.between * (attempts - 1)


@dataclass(frozen=True)
class Source:
    """The form of a data set: the columns of its text and gold answers, and its name on the hub."""

    text: str
    """Column of the problem's text."""
    gold: tuple[str, ...] = ()
    """Columns that the rewards need in every row."""
    id: str = "id"
    """Column of the row's id; without it the id is a hash of the text."""
    domain: str = "math"
    hub: str | None = None
    """Hub name, used when the recipe gives no path."""
    subset: str | None = None
    """Configuration of the hub data set."""
    refusal: Callable[[Row], str] = lambda row: ""
    """What is wrong with a row; empty for one that is right, or only lacks a column."""
    complete: Callable[[Row], Row] | None = None
    """Adds derived columns."""
    in_split: Callable[[Row, str], bool] | None = None
    """Whether a row belongs to a split, for files that contain all splits."""
    ask: Callable[[Row], str] | None = None
    """The question for the policy, where it is more than the text."""
    read: Callable[[str, str | None, str, Any], Any] | None = None
    """Path, subset, split and `rlcore.data.bad_rows.BadRows` to an `rlcore.data.table.Table`; None: by suffix."""
    make: Callable[[dict[str, Any], str], Any] | None = None
    """`data.options` and split to a `Table`, for a source that generates its problems."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A rollout engine, which samples attempts (see `rlcore.rollout.RolloutEngine`)."""

    start: Callable[..., Any]
    """Called on every rank as `start(recipe, policy, device=..., max_tokens=...)`; returns an engine with the policy's
    weights. `max_tokens` are those of the longest conversation."""
    weights: Literal["learner", "device", "elsewhere"] = "elsewhere"
    """The weights it samples from: the learner's model itself, a copy on the learner's device (in a fraction of its
    memory, `rollout.vllm.gpu_memory_utilization`), or those of other processes and devices."""
    check: Callable[[Any], None] = lambda section: None
    """Called with `recipe.rollout` before all else. Raises UserError where this machine lacks what it needs."""
    exact: bool = False
    """Whether its log-probabilities in float32 equal the learner's but for rounding."""
    takes_adapters: bool = False
    """Whether it accepts LoRA adapters; otherwise they are published merged into the weights."""
    servers: "Engine | None" = None
    """The engine of `rollout.mode: servers`, if it can be shared by all ranks."""


LOSSES: Registry[Loss] = Registry(
    "loss",
    Loss,
    {
        name: f"rlcore.recipe.losses:{name.upper()}"
        for name in ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo", "reinforce")
    },
)
SURROGATES: Registry[Surrogate] = Registry(
    "surrogate",
    Callable,
    {name: f"rlcore.learner.loss.losses:{name}" for name in ("ppo", "cispo", "sapo", "reinforce")},
)
KL_ESTIMATORS: Registry[KlEstimator] = Registry(
    "KL estimator",
    Callable,
    {name: f"rlcore.learner.loss.losses:kl_{name}" for name in ("exact", "k1", "k2", "k3", "reward")},
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
        name: f"rlcore.credit.baselines:{name.upper()}"
        for name in ("group", "leave_one_out", "tree", "outcome", "batch_outcome", "batch", "none")
    },
)
KINDS: Registry[Kind] = Registry(
    "kind of conversation",
    Kind,
    {name: f"rlcore.kinds.{name}:{name.upper()}" for name in ("correct", "critique", "verify", "feedback", "stop")}
    | {
        "iterate": "rlcore.kinds.iterate:ITERATE",
        "iterate_guided": "rlcore.kinds.iterate:ITERATE_GUIDED",
        "diagram": "rlcore.kinds.diagram:DIAGRAM",
        "think_if_symbols": "rlcore.kinds.think:IF_SYMBOLS",
        "think_if_unsure": "rlcore.kinds.think:IF_UNSURE",
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
    "engine", Engine, {"torch": "rlcore.session.engines:TORCH", "vllm": "rlcore.session.engines:VLLM"}
)

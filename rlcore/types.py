"""The nouns of rlcore: small frozen dataclasses that rooms hand to each other.

Array names carry their shape: P problems, G trajectories of one problem, A attempts, B trajectories, N tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rewards import Verdict

Message = dict[str, str]
"""One chat message, `{"role": ..., "content": ...}`."""


CORRECT = 1.0 - 1e-9
"""An attempt is correct when it has full marks: partial credit counts as wrong, so that t2 = t1 + i→c - c→i."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a data set: what the policy is asked and what the rewards read."""

    id: str
    messages: tuple[Message, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
    domain: str = "math"
    conversational: bool = False
    """Whether the data hold its prompt as messages; rewards are then given prompts and completions as messages."""


Role = Literal["attempt", "critique", "verdict", "stop"]
"""What a reply is: an answer to the problem; remarks on the answer before it, a judgement of it, or leaving it be."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is put before one reply of the policy, and the reply, as the exact token ids.

    `prompt_ids` are only the tokens this turn adds (never trained); `response_ids` were sampled (trained).
    `logprobs[i]` is the log-probability of `response_ids[i]` under the distribution it was sampled from, `versions[i]`
    the learner step whose weights sampled it. `claim` is what a verdict says of the attempt before it: right (True),
    wrong (False), or nothing that can be read. A reply that is not `trained` is context: another policy sampled it, or
    another trajectory of its group holds the same sample and trains it.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]
    text: str
    versions: tuple[int, ...]
    role: Role = "attempt"
    claim: bool | None = None
    trained: bool = True
    tokens_served: int = 0
    """How many tokens were sampled, where a server gave text without their ids."""

    @property
    def tokens(self) -> int:
        """How many tokens were sampled."""
        return len(self.response_ids) or self.tokens_served


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The turns of one conversation on one problem; `verdicts[a]` judges `attempts[a]` once it is scored."""

    problem: Problem
    turns: tuple[Turn, ...]
    verdicts: tuple[Verdict, ...] = ()

    @property
    def ids(self) -> list[int]:
        """All token ids of the conversation, in order."""
        return [token for turn in self.turns for token in (*turn.prompt_ids, *turn.response_ids)]

    @property
    def attempts(self) -> tuple[Turn, ...]:
        """The turns that answer the problem."""
        return tuple(turn for turn in self.turns if turn.role == "attempt")

    @property
    def marks_A(self) -> np.ndarray:
        """1 where the verdict on an attempt is that it is correct, else 0, NaN without a score: `[A]` float64.

        A reward for form beside the one for content moves the score of an attempt, and leaves its mark.
        """
        return np.array([np.nan if v.score is None else float(v.status == "correct") for v in self.verdicts])

    @property
    def rewards_A(self) -> np.ndarray:
        """Scores of the attempts, `[A]` float64, NaN where a reward gave none."""
        return np.array([np.nan if v.score is None else v.score for v in self.verdicts], dtype=np.float64)


Request = tuple[Problem, int]
"""A conversation to hold: its problem, and its number among those on the same problem."""

Groups = list[list[Trajectory]]
"""`groups[p][g]`: the G trajectories of each of P problems."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Everything the learner knows: B trajectories as flat per-token streams over their N tokens.

    Trajectory b holds tokens `offsets_B1[b] : offsets_B1[b + 1]`. The streams after the mask are zero where it is False
    (prompt tokens, and attempts without a verdict).
    """

    offsets_B1: np.ndarray
    """`[B + 1]` int64."""
    ids_N: np.ndarray
    """`[N]` int64 token ids."""
    turn_N: np.ndarray
    """`[N]` int8: the attempt a token belongs to, counted from 1 (prompt tokens included). What stands between two
    attempts belongs to the later one."""
    loss_mask_N: np.ndarray
    """`[N]` bool: sampled tokens that count in the loss."""
    advantage_N: np.ndarray
    """`[N]` float32."""
    kl_weight_N: np.ndarray
    """`[N]` float32: β of the token's attempt."""
    sampler_logprob_N: np.ndarray
    """`[N]` float32: log-probability under the distribution that sampled the token."""
    lag_N: np.ndarray | None = None
    """`[N]` int16: updates between the weights that sampled the token and those that learn it; None: not known."""

    @property
    def lengths_B(self) -> np.ndarray:
        """Tokens of each trajectory, `[B]` int64."""
        return np.diff(self.offsets_B1)

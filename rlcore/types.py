"""The nouns of rlcore: small frozen dataclasses that rooms pass to each other.

Array names carry their shape: P problems, G trajectories of one problem, A attempts, B trajectories, N tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rewards import Verdict

Message = dict[str, str]
"""One chat message, `{"role": ..., "content": ...}`."""


CORRECT_SCORE = 1.0 - 1e-9
"""Only full marks are correct: partial credit counts as wrong, so that t2 = t1 + i→c - c→i."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a data set: the messages to the policy and the columns that rewards read."""

    id: str
    messages: tuple[Message, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
    domain: str = "math"
    conversational: bool = False
    """Whether the data contain the prompt as messages; rewards then receive prompts and completions as messages."""
    text: str | None = None
    """What the data ask, without the words that the recipe's prompt puts around it; None: all that the user says."""


Role = Literal["attempt", "critique", "verdict", "stop"]
"""The role of a reply: an answer to the problem, or a critique, a verdict or an acceptance of the answer before it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The tokens added before one reply of the policy, and the reply, as exact token ids.

    `prompt_ids` are only the tokens that this turn adds (never trained); `response_ids` were sampled (trained).
    `logprobs[i]` is the log-probability of `response_ids[i]` under the distribution it was sampled from, `versions[i]`
    the learner step whose weights sampled it. `claim` is a verdict's judgement of the attempt before it: right (True),
    wrong (False), or unreadable (None). A reply that is not `trained` is context: another policy sampled it, or another
    trajectory of the group contains the same sample and trains it.
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
    """The number of sampled tokens, where a server returned text without ids."""

    @property
    def tokens(self) -> int:
        """The number of sampled tokens."""
        return len(self.response_ids) or self.tokens_served


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The turns of one conversation on one problem; once scored, `verdicts[a]` judges `attempts[a]`."""

    problem: Problem
    turns: tuple[Turn, ...]
    verdicts: tuple[Verdict, ...] = ()

    @property
    def ids(self) -> list[int]:
        """All token ids of the conversation, in order."""
        return [token for turn in self.turns for token in (*turn.prompt_ids, *turn.response_ids)]

    @property
    def attempts(self) -> tuple[Turn, ...]:
        """The turns that are attempts."""
        return tuple(turn for turn in self.turns if turn.role == "attempt")

    @property
    def marks_A(self) -> np.ndarray:
        """1 for attempts whose verdict is correct, else 0, NaN without a score: `[A]` float64.

        A reward for form, beside that for content, changes the score of an attempt but not its mark.
        """
        return np.array([np.nan if v.score is None else float(v.status == "correct") for v in self.verdicts])

    @property
    def rewards_A(self) -> np.ndarray:
        """Scores of the attempts, `[A]` float64; NaN without a score."""
        return np.array([np.nan if v.score is None else v.score for v in self.verdicts], dtype=np.float64)


Request = tuple[Problem, int]
"""A conversation to sample: its problem, and its number among those on the same problem."""

Groups = list[list[Trajectory]]
"""`groups[p][g]`: the G trajectories of each of P problems."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """All that the learner sees: B trajectories as flat per-token streams over their N tokens.

    Trajectory b holds tokens `offsets_B1[b] : offsets_B1[b + 1]`. The streams after the mask are zero where it is False
    (prompt tokens, and attempts without a verdict).
    """

    offsets_B1: np.ndarray
    """`[B + 1]` int64."""
    ids_N: np.ndarray
    """`[N]` int64 token ids."""
    turn_N: np.ndarray
    """`[N]` int8: the attempt of each token, prompt tokens included, counted from 1. Tokens between two attempts belong
    to the later one."""
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

"""Assumed lengths of prompts and responses: lognormal with a long tail, cut off at the recipe's limit."""

import math
from dataclasses import dataclass

import numpy as np

from rlcore.recipe import Recipe

INSTRUCTION_TOKENS = 64
"""Tokens between two attempts: the instruction and the marks of the chat template."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one conversation: its prompt, the mean of a response and its limit."""

    prompt: int
    response: float
    limit: int
    replies: int
    spread: float = 0.8
    """Standard deviation of a response's length over its mean, before the limit cuts it."""

    def draw(self, conversations: int, rng: np.random.Generator) -> np.ndarray:
        """Response tokens `[conversations, replies]` int64, at least 1."""
        variance = math.log(1 + self.spread**2)
        drawn = rng.lognormal(
            math.log(self.response) - variance / 2, math.sqrt(variance), (conversations, self.replies)
        )
        return np.clip(drawn, 1, self.limit).astype(np.int64)

    @property
    def conversation(self) -> float:
        """Mean tokens of a whole conversation."""
        return self.prompt + self.replies * self.response + (self.replies - 1) * INSTRUCTION_TOKENS


def assumed_lengths(recipe: Recipe, prompt: int | None, response: int | None, spread: float) -> Lengths:
    """The given lengths, else a quarter of the prompt limit and half of the response limit."""
    talk = recipe.conversation
    return Lengths(
        prompt=prompt or max(1, talk.max_prompt_tokens // 4),
        response=response or max(1, talk.max_attempt_tokens // 2),
        limit=talk.max_attempt_tokens,
        replies=talk.replies,
        spread=spread,
    )


def longest_conversation(recipe: Recipe) -> int:
    """An upper bound on the tokens of a conversation, which caches have room for."""
    talk = recipe.conversation
    return talk.max_prompt_tokens + talk.replies * (talk.max_attempt_tokens + INSTRUCTION_TOKENS)

"""Verifiable rewards: math, code, a generative verifier, and your own, in processes that can be killed."""

from rewards.pool import RewardPool, score
from rewards.registry import load_reward
from rewards.verdict import RewardError, Verdict

__all__ = ["RewardError", "RewardPool", "Verdict", "load_reward", "score"]

"""Supervised warm starts: a small policy that holds a little of the skill which reinforcement learning then grows."""

from rlcore.sft.schema import WarmStart
from rlcore.sft.warm_start import warm_start

__all__ = ["WarmStart", "warm_start"]

"""Rollouts: token-exact conversations, engines that sample attempts, and the episodes that join them."""

from rlcore.rollout.conversation import Conversation, TemplateCheck
from rlcore.rollout.engine import RolloutEngine, Sample, Sampling
from rlcore.rollout.episodes import sample_groups
from rlcore.rollout.torch_engine import TorchEngine

__all__ = ["Conversation", "RolloutEngine", "Sample", "Sampling", "TemplateCheck", "TorchEngine", "sample_groups"]

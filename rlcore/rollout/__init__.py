"""Rollouts: token-exact conversations, engines that sample attempts, and the episodes that join them."""

from rlcore.rollout.conversation import Conversation, TemplateCheck
from rlcore.rollout.embedded.engine import TorchEngine
from rlcore.rollout.engine import RolloutEngine, Sample, Sampling
from rlcore.rollout.episodes import sample_groups
from rlcore.rollout.rollout import Rollout
from rlcore.rollout.scoring import Scorer

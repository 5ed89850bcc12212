"""The learner: packing, log-probabilities, losses, the reference policy, and the DeepSpeed engine under them."""

from rlcore.learner.distributed import Ranks, start_distributed
from rlcore.learner.learner import Learner
from rlcore.learner.tally import LearnerReport
from rlcore.learner.watchdog import watch

__all__ = ["Learner", "LearnerReport", "Ranks", "start_distributed", "watch"]

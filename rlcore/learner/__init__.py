"""The learner: packing, log-probabilities, losses, the reference policy, and the DeepSpeed engine under them."""

from rlcore.learner.learner import Learner
from rlcore.learner.loss.statistics import LearnerReport

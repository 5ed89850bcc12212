"""Credit: verdicts become per-token advantages. SCoRe's stages, plain multi-turn GRPO and RLOO differ only here."""

from rlcore.credit.adaptive_kl import adapted_kl
from rlcore.credit.advantages import advantages
from rlcore.credit.returns import turn_returns
from rlcore.credit.streams import assign, compares, live_groups, token_batch
from rlcore.credit.turns import Turns

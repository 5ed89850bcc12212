"""Credit: verdicts become per-token advantages. SCoRe's stages, plain multi-turn GRPO and RLOO differ only here."""

from rlcore.credit.advantages import advantages
from rlcore.credit.returns import attempt_returns
from rlcore.credit.streams import assign, token_batch

__all__ = ["advantages", "assign", "attempt_returns", "token_batch"]

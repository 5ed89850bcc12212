"""Published losses by name, as settings of the learner, and the correction of samplers that differ from it."""

from typing import Literal

from pydantic import Field, model_validator

from rlcore.entries import Loss
from rlcore.recipe.section import NonNegative, Section

GRPO = Loss("ppo", average="attempt", source="DeepSeekMath, arXiv 2402.03300")
DR_GRPO = Loss("ppo", average="constant", source="arXiv 2503.20783")
DAPO = Loss("ppo", clip=(0.2, 0.28), source="DAPO, arXiv 2503.14476")
GSPO = Loss("ppo", ratio="attempt", clip=(3e-4, 4e-4), average="attempt", source="arXiv 2507.18071")
CISPO = Loss("cispo", clip=(1.0, 4.0), source="MiniMax-M1, arXiv 2506.13585")
SAPO = Loss("sapo", clip=(1.05, 1.0), average="attempt", source="arXiv 2511.20347; clip holds its two τ")
REINFORCE = Loss("reinforce", clip=(0.0, 0.0), average="constant", source="Williams 1992; SCoRe's own")


class CorrectionConfig(Section):
    """Weights of tokens that sampler and learner give different probabilities: learner's over sampler's, bounded."""

    mode: Literal["none", "truncate", "mask"] = Field(
        "truncate", description="outside the bounds: truncate takes the nearer bound, mask leaves the token out"
    )
    level: Literal["token", "attempt", "trajectory"] = Field(
        "token", description="attempt, trajectory: one weight for all its tokens, their product"
    )
    bounds: tuple[NonNegative, NonNegative] = Field((0.0, 2.0), description="lowest and highest weight")

    @model_validator(mode="after")
    def _bounds_hold_one(self) -> "CorrectionConfig":
        if not self.bounds[0] <= 1 <= self.bounds[1]:
            raise ValueError(f"bounds {list(self.bounds)} must have 1, the weight where both agree, between them")
        return self

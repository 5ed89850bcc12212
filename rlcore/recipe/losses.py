"""Published losses by name, as settings of the learner, and the correction of samplers that differ from it."""

from typing import Literal

from pydantic import Field, model_validator

from rlcore.entries import Loss
from rlcore.recipe.section import NonNegative, Section

# rlcore/learner/README.md says where they were published.
GRPO = Loss("ppo", clip=(0.2, 0.2), average="attempt")
DR_GRPO = Loss("ppo", clip=(0.2, 0.2), average="constant")
DAPO = Loss("ppo", clip=(0.2, 0.28), average="token")
GSPO = Loss("ppo", ratio="attempt", clip=(3e-4, 4e-4), average="attempt")
CISPO = Loss("cispo", clip=(1.0, 4.0), average="token")
REINFORCE = Loss("reinforce", clip=(0.0, 0.0), average="constant")


class Correction(Section):
    """Weights of tokens that sampler and learner give different probabilities: learner's over sampler's, bounded."""

    mode: Literal["none", "truncate", "mask"] = Field(
        "truncate", description="outside the bounds: truncate takes the nearer bound, mask leaves the token out"
    )
    level: Literal["token", "attempt", "trajectory"] = Field(
        "token", description="attempt, trajectory: one weight for all its tokens, their product"
    )
    bounds: tuple[NonNegative, NonNegative] = Field((0.0, 2.0), description="lowest and highest weight")

    @model_validator(mode="after")
    def _bounds_hold_one(self) -> "Correction":
        if not self.bounds[0] <= 1 <= self.bounds[1]:
            raise ValueError(f"bounds {list(self.bounds)} must have 1, the weight where both agree, between them")
        return self

"""Published losses by name, as settings of the learner, and the correction of samplers that differ from it."""

from typing import Any, Literal

from pydantic import Field, model_validator

from rlcore.recipe.section import NonNegative, Section

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"ratio": "token", "surrogate": "ppo", "clip": (0.2, 0.2), "average": "attempt"},
    "dr_grpo": {"ratio": "token", "surrogate": "ppo", "clip": (0.2, 0.2), "average": "constant"},
    "dapo": {"ratio": "token", "surrogate": "ppo", "clip": (0.2, 0.28), "average": "token"},
    "gspo": {"ratio": "attempt", "surrogate": "ppo", "clip": (3e-4, 4e-4), "average": "attempt"},
    "cispo": {"ratio": "token", "surrogate": "cispo", "clip": (1.0, 4.0), "average": "token"},
    "reinforce": {"ratio": "token", "surrogate": "reinforce", "clip": (0.0, 0.0), "average": "constant"},
}
"""What `learner.loss` stands for: values of the settings beside it (see rlcore/learner/README.md)."""


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

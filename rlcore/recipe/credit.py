"""What a recipe says of credit, and the stages that credit is given in."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlcore.entries import BASELINES, SCORES
from rlcore.recipe.section import Fraction, NonNegative, Positive, Section


class CreditConfig(Section):
    """How verdicts become advantages (see rlcore/credit)."""

    scores: Annotated[str, SCORES] = Field(
        "rewards",
        description="what attempts are scored by in training; majority: agreement with the most frequent answer of the "
        "group, without labels, as in TTRL",
    )
    unit: Literal["attempt", "trajectory"] = Field(
        "attempt", description="trajectory: one advantage for all attempts from their summed returns, as in plain GRPO"
    )
    baseline: Annotated[str, BASELINES] = Field(
        "group",
        description="what an attempt is compared with: its group with or without itself; those that go on from the "
        "same first attempt; those of the group or batch whose previous attempt scored the same; the batch; nothing",
    )
    scale: Literal["none", "group", "batch", "mean"] = Field(
        "none",
        description="divide advantages by the standard deviation of the group's or batch's returns; mean: by the "
        "group's mean return, as in MaxRL",
    )
    best_of: Positive = Field(
        1, description="k: pay a turn for the best return among itself and k - 1 of its group, which trains pass@k"
    )
    mask_truncated: bool = Field(
        False, description="attempts cut at max_attempt_tokens leave the loss; others are still compared with them"
    )
    discount: Fraction = Field(0.0, description="how much an attempt is paid for the returns of later ones")


class StageConfig(Section):
    """One phase of training, as data. Lists have one entry an attempt."""

    name: str
    steps: Positive
    reward: list[float] = Field([1.0, 1.0], description="weight of each attempt's own reward")
    bonus: NonNegative = Field(0.0, description="α: pays r(t) - r(t-1) on attempts after the first")
    kl: list[NonNegative] = Field(
        [0.0, 0.0], description="β of each attempt: weight of its KL from the reference policy in the loss"
    )
    kl_target: list[NonNegative] = Field(
        [], description="KL, in nats a token, that each attempt's β is adapted to hold, from `kl` on; 0: β stays"
    )
    trains: Literal["all", "critiques"] = Field(
        "all", description="critiques: nothing but critiques of attempts that are not correct"
    )
    base_first: Fraction = Field(
        0.0, description="share of first attempts that are the starting policy's, sampled once and not trained"
    )

    @model_validator(mode="after")
    def _targets_can_be_held(self) -> "StageConfig":
        if len(self.kl_target) not in (0, len(self.kl)):
            raise ValueError(f"stage {self.name}: kl_target needs {len(self.kl)} values, as kl has, or none")
        if any(target and not kl for target, kl in zip(self.kl_target, self.kl, strict=False)):
            raise ValueError(f"stage {self.name}: a kl of 0 cannot be adapted to a kl_target")
        return self

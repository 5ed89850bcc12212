"""The typed schema of a warm start."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from rlcore.recipe.schema import ConversationConfig, DataConfig, Fraction, Positive, ScratchConfig, Section


class Mixture(Section):
    """The mixture of attempts in generated conversations (see `demonstrations`)."""

    right_first: Fraction = Field(1.0, description="share of conversations whose attempt 1 is right")
    learn_first: Fraction = Field(1.0, description="share of right first attempts whose choice is learned")
    keep_right: Fraction = Field(1.0, description="share of right first attempts that attempt 2 repeats")
    keep_wrong: Fraction = Field(0.0, description="share of wrong first attempts that attempt 2 repeats")
    fix: Fraction = Field(1.0, description="share of the wrong first attempts not repeated that become right")


class Phase(Section):
    """Supervised steps on conversations of one kind."""

    name: str
    attempts: Annotated[int, Field(ge=1, le=2)]
    steps: Positive
    lr: PositiveFloat
    decay: Fraction = Field(0.5, description="share of the steps, the last ones, over which lr falls linearly")
    mixture: Mixture = Mixture()


class WarmStart(Section):
    """A policy made from scratch and trained on generated conversations about lettered pairs."""

    name: str
    seed: NonNegativeInt = 0
    output: str = Field(description="folder that the policy is written to")
    sizes: ScratchConfig
    data: DataConfig
    conversation: ConversationConfig
    phases: list[Phase] = Field(min_length=1)
    batch: Positive = Field(128, description="conversations a step")

    @model_validator(mode="after")
    def _about_lettered_pairs(self) -> "WarmStart":
        if self.data.source != "arithmetic":
            raise ValueError(
                f"data.source {self.data.source}: a warm start makes its conversations from lettered pairs, the "
                "arithmetic source; demonstrations of other data are learned by rlcore train with an sft section"
            )
        return self

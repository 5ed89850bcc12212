"""The section `adapt`: what `rlcore adapt` does with each problem before it is answered."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from rlcore.recipe.model import LoraConfig
from rlcore.recipe.section import Positive, Section


class AdaptConfig(Section):
    """Training at test time (Akyürek et al. 2024, arXiv 2411.07279): see recipes/test_time/README.md."""

    steps: NonNegativeInt = Field(16, description="optimizer steps for each problem; 0: none is trained")
    batch: Positive = Field(4, description="demonstrations learned in each step")
    lr: PositiveFloat = 1e-4
    lora: LoraConfig = LoraConfig()
    tasks: Literal["leave_one_out", "alone"] = Field(
        "leave_one_out", description="a demonstration is learned with the others shown before it; alone: without them"
    )
    loss: Literal["outputs", "answer"] = Field(
        "outputs", description="what is learned of a task: the answer, and the outputs shown before it but the first"
    )
    transform: bool = Field(True, description="learn each demonstration in drawn symmetries and exchanges of colours")
    colours: Literal["all", "shown"] = Field(
        "all", description="what transformations exchange: all ten colours, or only those that the problem shows"
    )
    together: Positive = Field(8, description="problems whose adapters are trained, and sampled from, in one batch")
    shared: bool = Field(False, description="one adapter for all problems, with as many steps for each")
    views: Positive = Field(8, description="transformed copies of each problem that are asked, itself the first")
    samples: Positive = Field(2, description="conversations of each view, its demonstrations in an order of their own")
    votes: Literal["two_level", "plain"] = Field(
        "two_level", description="most frequent within each view, then across views; plain: among all samples"
    )

    @model_validator(mode="after")
    def _can_be_dropped(self) -> "AdaptConfig":
        if self.lora.quantize != "none":
            raise ValueError("lora.quantize: the weights under adapters of a problem stay as they are: take none")
        return self

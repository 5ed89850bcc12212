"""The policy's section of a recipe."""

from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from rlcore.recipe.section import Fraction, NonNegative, Positive, Section


class ScratchConfig(Section):
    """A small Qwen2-architecture model with random weights, for tests of the path and for teaching."""

    hidden_size: Positive = 128
    layers: Positive = 3
    heads: Positive = 4
    kv_heads: Positive = 2
    intermediate_size: Positive = 256
    init_std: NonNegative = Field(0.02, description="standard deviation of the random weights")
    max_positions: Positive = 1024
    vocab_size: int = Field(2048, ge=259, description="of the BPE trained on the data: 256 bytes, 3 marks, and merges")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ScratchConfig":
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must divide hidden_size and be divisible by kv_heads {self.kv_heads}")
        return self


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) in place of training all weights, through peft."""

    rank: Positive = 16
    alpha: PositiveFloat = Field(32.0, description="the adapters' output counts alpha / rank times")
    targets: list[str] | Literal["all-linear"] = Field(
        "all-linear", description="names of the layers that get one; all-linear leaves out only the output head"
    )
    dropout: Fraction = Field(0.0, description="before the adapters, in the learner's passes alone")
    quantize: Literal["none", "nf4"] = Field(
        "none", description="nf4: the frozen weights in four bits (QLoRA, arXiv 2305.14314); extra qlora"
    )


class ModelConfig(Section):
    """The policy at the start of the run."""

    path: str | None = Field(None, description="a Hugging Face folder (relative to the recipe) or a hub name")
    scratch: ScratchConfig | None = Field(
        None, description="make a random model instead, its tokenizer trained on the data"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="float16 is trained with a scaled loss, on CUDA alone"
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = Field(
        "auto", description="auto: FlashAttention where it is installed and the sampler is not this model; else sdpa"
    )
    lora: LoraConfig | None = Field(
        None, description="train low-rank adapters; the reference is then the model without them"
    )
    chat_template: str | None = Field(
        None, description="a Jinja template, or a file that holds one, that replaces the tokenizer's own"
    )
    trust_remote_code: bool = Field(False, description="run the Python that comes with the model's files")

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelConfig":
        if (self.path is None) == (self.scratch is None):
            told = f"model={{path: {self.path}}} leaves scratch out" if self.path else "neither is there"
            raise ValueError(f"give exactly one of path and scratch; {told}")
        if self.scratch and self.lora and self.lora.quantize != "none":
            raise ValueError("a scratch model cannot be quantised")
        return self

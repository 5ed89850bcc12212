"""The typed schema of a recipe: one YAML file that holds a whole experiment. Every field says what it means."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from rlcore.entries import KINDS, KL_ESTIMATORS, LOSSES, SOURCES, SURROGATES
from rlcore.errors import UserError
from rlcore.recipe.adapt import AdaptConfig
from rlcore.recipe.credit import CreditConfig, StageConfig
from rlcore.recipe.losses import CorrectionConfig
from rlcore.recipe.model import LoraConfig as LoraConfig
from rlcore.recipe.model import ModelConfig
from rlcore.recipe.model import ScratchConfig as ScratchConfig
from rlcore.recipe.rollout import RolloutConfig
from rlcore.recipe.rollout import VllmConfig as VllmConfig
from rlcore.recipe.rules import broken_rules
from rlcore.recipe.section import Fraction, Name, NonNegative, Positive, Seconds, Section, Text

PLACEHOLDER = re.compile(r"(?:(?<![\\\w])|(?=\{prompt\}))\{(\w+)\}")
"""`{prompt}`, and other names but where a word stands before them: `\\boxed{answer}` stands for itself."""


AHEAD_MAX_RATIO = 3.0
"""`learner.max_ratio` where sampling is ahead of the learner and the recipe does not say."""


class DataConfig(Section):
    """Where problems come from."""

    source: Annotated[str, SOURCES]
    path: str | None = Field(None, description="file or hub name; a source knows its hub name when this is left out")
    subset: str | None = Field(None, description="configuration name of a hub data set")
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict, description="what a column is called here: {answer: gold}")
    prompt: str = Field(
        "{prompt}", description="the user message; {prompt} stands for the problem's text, {NAME} for a column's"
    )
    system: str | None = Field(None, description="a system message before it")
    skip_bad_rows: bool = Field(
        False, description="leave out rows that are not JSON or lack a column, and list them; else they are an error"
    )
    limit: Positive | None = Field(None, description="use only the first problems")
    exclude: str | None = Field(None, description="file or hub name of problems to leave out, by their text")
    options: dict[str, Any] = Field(default_factory=dict, description="settings of a generator")

    @model_validator(mode="after")
    def _prompt_asks(self) -> "DataConfig":
        if not self.asked_columns:
            raise ValueError("prompt must contain {prompt}, which stands for the problem's text, or a column as {NAME}")
        return self

    @property
    def asked_columns(self) -> list[str]:
        """The columns that the prompt is made of; `prompt` is the problem's text."""
        return list(dict.fromkeys(PLACEHOLDER.findall(self.prompt)))


class ConversationConfig(Section):
    """How attempts follow each other."""

    kind: Annotated[str, KINDS] = Field(
        "correct",
        description="what comes between attempts (rlcore/rollout/README.md): the instruction; a critique first; a "
        "verdict, and the instruction only if it says wrong; results of public tests; or the policy may stop",
    )
    attempts: Positive = Field(2, description="of a conversation; at most so many where the kind may end it sooner")
    instruction: Text = Field(
        "There might be an error in the solution above. Please correct the error, if any, and give the whole solution "
        "again.",
        description="the user message before every attempt after the first; never says whether that attempt was "
        "right. score_math and score_code stand for the texts of the SCoRe paper",
    )
    review: str | None = Field(
        None, description="the user message that asks for a critique, a verdict or a stop; None: the kind's own"
    )
    max_prompt_tokens: Positive = 1024
    max_attempt_tokens: Positive = Field(1024, description="of every reply, critiques and verdicts included")

    @property
    def replies(self) -> int:
        """The most replies of a conversation, critiques and verdicts included."""
        return KINDS[self.kind].replies(self.attempts)


class RewardConfig(Section):
    """One reward function; several add up by weight."""

    name: str = Field(description="a registered name, package.module:function, or path/to/file.py:function")
    weight: float = 1.0
    kwargs: dict[str, Any] = Field(default_factory=dict)


class RewardsConfig(Section):
    """How attempts are scored."""

    functions: list[RewardConfig] = Field(min_length=1)
    workers: Positive = 2
    deadline: Seconds = Field(5.0, description="seconds an attempt; then the worker is killed")
    max_failed: Fraction = Field(0.1, description="a step with a larger share of unscored attempts stops the run")


class BatchConfig(Section):
    """What one step is made of, over all ranks together."""

    problems: Positive = Field(32, description="problems a step")
    group: Positive = Field(8, description="trajectories a problem")
    branches: Positive = Field(1, description="trajectories of a group that go on from one first attempt: a tree")
    resample: NonNegativeInt = Field(
        0, description="most rounds in which groups of other problems are sampled for those without advantages"
    )
    ahead: NonNegativeInt = Field(
        0, description="updates by which sampling may be ahead of the learner (rlcore/train/README.md); 0: it waits"
    )


class SftConfig(Section):
    """Supervised rounds by TRL's SFTTrainer in place of stages, at learner's lr (see rlcore/sft/README.md)."""

    rows: Literal["star", "pair", "column"] = Field(
        description="star: own conversations whose last attempt mends the first; pair: own wrong first attempts joined "
        "with right ones at the same problem; column: demonstrations that the data hold"
    )
    column: str = Field("solution", description="of the data: the demonstration; only rows column reads it")
    loss: Literal["answer", "outputs"] = Field(
        "answer", description="of rows column: outputs also learns what demonstrations in the prompt show"
    )
    keep_right: bool = Field(False, description="star and pair also learn conversations that are right twice")
    problems: Positive | None = Field(None, description="problems of a round; all when left out")
    samples: Positive = Field(1, description="conversations sampled of each problem")
    rounds: Positive = Field(
        1,
        description="times that it learns; star and pair sample with the last round's policy, and learn from the first",
    )
    epochs: PositiveFloat = Field(1.0, description="passes over the rows of a round")
    batch: Positive = Field(64, description="conversations an optimizer step, over all ranks")


class LearnerConfig(Section):
    """The DeepSpeed engine and its loss."""

    lr: PositiveFloat = 1e-6
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    warmup_steps: NonNegativeInt = Field(0, description="optimizer steps over which lr rises linearly")
    decay: Fraction = Field(0.0, description="share of all optimizer steps, the last ones, over which lr falls to 0")
    max_grad_norm: PositiveFloat = 1.0
    epochs: Positive = Field(1, description="passes over one batch of trajectories")
    minibatches: Positive = Field(1, description="optimizer steps on one batch of trajectories, in each epoch")
    loss: Annotated[str, LOSSES] = Field(
        "dapo", description="a published loss: gives the next four, each of which may be set beside it"
    )
    ratio: Literal["token", "attempt"] = Field("token", description="attempt: the geometric mean over its tokens")
    surrogate: Annotated[str, SURROGATES] = Field(
        "ppo", description="ppo: clipped ratio x advantage; cispo: the clipped ratio weighs log π; reinforce: no ratio"
    )
    clip: tuple[NonNegative, NonNegative] = Field((0.2, 0.28), description="ratio kept within [1 - low, 1 + high]")
    average: Literal["token", "attempt", "constant"] = Field(
        "token",
        description="loss per token of the batch; per attempt, of its mean; per trajectory of the longest length",
    )
    old_logprobs: Literal["auto", "sampler", "learner"] = Field(
        "auto",
        description="what the ratio compares with: the sampler's, or the learner's own before the update, computed in "
        "a pass only if several optimizer steps follow; auto: the sampler's if they are exactly the learner's, or with "
        "batch.ahead",
    )
    max_ratio: Annotated[float, Field(gt=1)] | None = Field(
        None,
        description="tokens of negative advantage with a larger ratio, which clip does not bound there, are left out; "
        "None: none, or with batch.ahead those above 3",
    )
    correction: CorrectionConfig = Field(CorrectionConfig(), description="used where old_logprobs are the learner's")
    entropy_bonus: NonNegative = Field(0.0, description="pays for entropy, in the loss of every token")
    kl: Annotated[str, KL_ESTIMATORS] = Field(
        "k3",
        description="exact sums over the vocabulary; the others are one-sample estimates; reward is taken from the "
        "advantages instead of added to the loss",
    )
    zero: Literal[0, 1, 2, 3] = Field(0, description="DeepSpeed ZeRO stage; 0 is done as 1 but in float32")
    offload: list[Literal["optimizer", "parameters", "activations"]] = Field(
        default_factory=list, description="what lies in the host's memory: optimizer from zero 1 on, parameters with 3"
    )
    activation_checkpointing: bool = Field(
        False, description="keep only what enters each layer, and compute the layer again in the backward pass"
    )
    sequence_parallel: Positive = Field(
        1,
        description="ranks that compute each trajectory together, a stretch of its tokens each (DeepSpeed's Ulysses); "
        "divides ranks and heads of attention",
    )
    fused_kernels: bool = Field(
        False, description="norms, rotary embeddings and gated activations by Liger's kernels; CUDA, extra liger"
    )
    micro_batch_tokens: Positive = Field(16384, description="padded tokens in one forward pass on each rank")
    max_skipped: Positive = Field(10, description="steps skipped in a row, for what is not finite, that stop the run")
    deadline: PositiveFloat = Field(
        7200.0,
        description="seconds a phase of a step (sampling, learning, publishing, saving), or a rank's wait for others "
        "in any command, may take at most",
    )
    deepspeed: dict[str, Any] = Field(default_factory=dict, description="further DeepSpeed settings, merged in")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_loss(cls, values: Any) -> Any:
        name = values.get("loss", "dapo") if isinstance(values, dict) else None
        try:
            return {**LOSSES[name].settings(name), **values} if isinstance(name, str) else values
        except UserError:  # which the key itself then says
            return values

    @model_validator(mode="after")
    def _offload_fits(self) -> "LearnerConfig":
        for part, least in (("optimizer", 1), ("parameters", 3)):
            if part in self.offload and self.zero < least:
                raise ValueError(f"offload of {part} needs zero {least} or more, not {self.zero}")
        return self

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps on one batch."""
        return self.epochs * self.minibatches


class EvaluateConfig(Section):
    """Measurements on held-out problems."""

    data: DataConfig
    attempts: Positive | None = Field(None, description="of a conversation; as many as in training when left out")
    every: NonNegativeInt = Field(0, description="steps between evaluations while training; 0: none")
    problems: Positive = Field(2000, description="problems of a full evaluation")
    problems_while_training: Positive = 256
    temperature: PositiveFloat = Field(1.0, description="of the sampled evaluation, beside the greedy one")
    samples: NonNegativeInt = Field(
        1,
        description="conversations of each problem in the sampled part of a full evaluation, for pass@k and maj@k; 0: "
        "greedy alone",
    )
    endpoint: str | None = Field(
        None, description="rlcore eval measures the model behind this OpenAI-compatible URL instead of the recipe's own"
    )


class CheckpointConfig(Section):
    """What is saved, and when."""

    every: NonNegativeInt = Field(50, description="steps between saves; 0: only at the end")
    keep_last: Positive = Field(2, description="checkpoints that stay: the newest")
    keep_every: NonNegativeInt = Field(0, description="and those whose step this divides; 0: none")
    keep_best: bool = Field(True, description="and the one with the highest training reward over its `every` steps")
    final: Literal["last", "best"] = Field(
        "last", description="the policy that a run ends with, in final/ and its evaluation; best: that of keep_best"
    )

    @model_validator(mode="after")
    def _best_is_kept(self) -> "CheckpointConfig":
        if self.final == "best" and not (self.keep_best and self.every):
            raise ValueError("final best needs keep_best, and every above 0")
        return self


class TrackConfig(Section):
    """Where a run is seen."""

    wandb: Literal["auto", "offline", "off"] = Field("auto", description="auto: online if logged in, else offline")
    project: str = Field("rlcore", description="of W&B")
    tensorboard: bool = Field(False, description="event files in the run's folder too")
    every: NonNegativeInt = Field(
        25, description="steps between histograms and tables of trajectories on dashboards; 0: none"
    )
    trajectories: NonNegativeInt = Field(4, description="written to trajectories.jsonl each step")


class Recipe(Section):
    """One experiment."""

    name: Name
    seed: NonNegativeInt = 0
    output: str = Field("", description="folder of the run; runs/NAME when left out")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelConfig
    data: DataConfig
    conversation: ConversationConfig = ConversationConfig()
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardsConfig
    batch: BatchConfig = BatchConfig()
    credit: CreditConfig = CreditConfig()
    after: str | None = Field(
        None,
        description="a recipe that runs first, in before/ of this run or table of runs; its final policy is the model",
    )
    sft: SftConfig | None = Field(None, description="supervised rounds; stages is then an empty list")
    stages: list[StageConfig] = Field(description="an empty list evaluates the model as it is")
    learner: LearnerConfig = LearnerConfig()
    evaluate: EvaluateConfig | None = None
    adapt: AdaptConfig | None = Field(
        None, description="train at test time: a few steps on the demonstrations of each held-out problem"
    )
    checkpoint: CheckpointConfig = CheckpointConfig()
    track: TrackConfig = TrackConfig()

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def offline_first_attempts(self, stage: StageConfig) -> int:
        """How many first attempts of each group are the starting policy's."""
        return round(stage.base_first * self.batch.group / self.batch.branches)

    @property
    def exact_sampler(self) -> bool:
        """Whether the sampler's log-probabilities are the learner's own but for rounding in float32."""
        return self.rollout.entry.exact and self.model.dtype == "float32"

    @property
    def learning(self) -> LearnerConfig:
        """The learner's settings, completed by what samples of earlier weights ask for.

        The ratio then compares with what was really drawn from, whatever weights those were: no pass computes what the
        present ones say of it, and the clip bounds how far the policy is from it.
        """
        learner = self.learner
        if not self.batch.ahead or learner.old_logprobs == "learner":
            return learner
        return learner.model_copy(update={"old_logprobs": "sampler", "max_ratio": learner.max_ratio or AHEAD_MAX_RATIO})

    @property
    def adapters_apart(self) -> LoraConfig | None:
        """The adapters, where the rollout engine takes them as they are and not merged into the weights.

        The weights under them have to be the sampler's too: quantised ones are published as they come out, merged.
        """
        lora, rollout = self.model.lora, self.rollout
        merged = not rollout.entry.takes_adapters or rollout.vllm.merge_adapters
        return lora if lora and lora.quantize == "none" and not merged else None

    @property
    def held_out_conversation(self) -> ConversationConfig:
        """How the policy is asked in evaluations."""
        attempts = self.evaluate.attempts if self.evaluate else None
        return self.conversation.model_copy(update={"attempts": attempts}) if attempts else self.conversation

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        for reason in broken_rules(self):
            raise ValueError(reason)
        return self

"""`learner.deepspeed`, a recipe's own DeepSpeed settings: merged into the learner's, or refused."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rlcore.errors import UserError, did_you_mean, one_line

KEY = "learner.deepspeed"
SAID_ELSEWHERE = {
    "train_batch_size": "batch.problems and batch.group",
    "train_micro_batch_size_per_gpu": "learner.micro_batch_tokens",
    "gradient_accumulation_steps": "learner.minibatches",
    "gradient_clipping": "learner.max_grad_norm",
    "scheduler": "learner.warmup_steps and learner.decay",
    "optimizer.params.lr": "learner.lr",
    "optimizer.params.betas": "learner.betas",
    "optimizer.params.weight_decay": "learner.weight_decay",
    "zero_optimization.stage": "learner.zero",
    "bf16.enabled": "model.dtype",
    "fp16.enabled": "model.dtype",
    "amp": "model.dtype",
}
"""Settings that the learner sets for what it does itself, and where a recipe says it."""
OF_OTHER_MODULES = (
    "autotuning",
    "comet",
    "compile",
    "compression_training",
    "csv_monitor",
    "elasticity",
    "hybrid_engine",
    "nebula",
    "sequence_parallel_size",
    "tensor_parallel",
    "wandb",
)
"""Keys that DeepSpeed's configuration leaves to others to read."""


def with_further(settings: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `further` merged in, which wins.

    Raises UserError for a key that DeepSpeed does not know or the recipe says elsewhere, and for a value in place of a
    mapping.
    """
    return _merged(settings, further, "") if further else dict(settings)


@contextmanager
def refused_by_deepspeed(further: Mapping[str, Any]) -> Iterator[None]:
    """Around what reads the settings: where the recipe says some, what DeepSpeed raises for them is a UserError."""
    try:
        yield
    except (AssertionError, AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        if not further:
            raise
        raise UserError(f"{KEY}: DeepSpeed refuses it: {one_line(error)[:300]}") from None


def _known_keys(at: str) -> set[str]:
    """What DeepSpeed reads at the top or under a key; empty for what it hands on to others."""
    from deepspeed.runtime import config  # takes seconds
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    if at == "zero_optimization":
        fields = DeepSpeedZeroConfig.model_fields
        return {*fields, *(field.alias for field in fields.values() if field.alias)}
    constants = {value for name, value in vars(config).items() if name.isupper() and isinstance(value, str)}
    return set() if at else constants.union(OF_OTHER_MODULES)


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any], at: str) -> dict[str, Any]:
    merged, known = dict(base), _known_keys(at)
    for key, value in extra.items():
        place = f"{at}.{key}" if at else key
        if place in SAID_ELSEWHERE:
            raise UserError(f"{KEY}.{place}: the learner sets it; a recipe says it as {SAID_ELSEWHERE[place]}")
        if known and key not in known | base.keys():
            raise UserError(f"{KEY}: unknown key {place}{did_you_mean(key, known | base.keys())}")
        if isinstance(base.get(key), dict):
            if not isinstance(value, dict):
                raise UserError(f"{KEY}.{place} must be a mapping, not {value!r}")
            value = _merged(base[key], value, place)
        merged[key] = value
    return merged

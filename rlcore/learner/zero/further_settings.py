"""What a recipe says to DeepSpeed itself, `learner.deepspeed`: merged into the learner's settings, or refused."""

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
    known = _known_keys() | settings.keys() if further else set()
    for key in further:
        if key in SAID_ELSEWHERE:
            raise UserError(f"{KEY}.{key}: the learner sets it; a recipe says it as {SAID_ELSEWHERE[key]}")
        if key not in known:
            raise UserError(f"{KEY}: unknown key {key}{did_you_mean(key, known)}")
    return _merged(settings, further, KEY)


@contextmanager
def refused_by_deepspeed(further: Mapping[str, Any]) -> Iterator[None]:
    """Around what reads the settings: where the recipe says some, what DeepSpeed raises for them is a UserError."""
    try:
        yield
    except (AssertionError, AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        if not further:
            raise
        raise UserError(f"{KEY}: DeepSpeed refuses it: {one_line(error)[:300]}") from None


def _known_keys() -> set[str]:
    from deepspeed.runtime import config  # takes seconds

    constants = {value for name, value in vars(config).items() if name.isupper() and isinstance(value, str)}
    return constants.union(OF_OTHER_MODULES)


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any], at: str) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        if isinstance(base.get(key), dict):
            if not isinstance(value, dict):
                raise UserError(f"{at}.{key} must be a mapping, not {value!r}")
            value = _merged(base[key], value, f"{at}.{key}")
        merged[key] = value
    return merged

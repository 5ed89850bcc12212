"""The policy's model and tokenizer: loaded from a folder or the hub, or made small and random, and saved."""

from rlcore.policy.check import check_same_parameters, parameter_shapes
from rlcore.policy.load import Policy, load_policy, place_policy, save_policy, stop_ids
from rlcore.policy.phrases import phrase_tokenizer

__all__ = [
    "Policy",
    "check_same_parameters",
    "load_policy",
    "parameter_shapes",
    "phrase_tokenizer",
    "place_policy",
    "save_policy",
    "stop_ids",
]

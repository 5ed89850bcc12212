"""The policy's model and tokenizer: loaded from a folder or the hub, or made small and random, and saved."""

from rlcore.policy.load import (
    Policy,
    check_same_parameters,
    load_policy,
    parameter_shapes,
    place_policy,
    save_policy,
    stop_ids,
)
from rlcore.policy.scratch import phrase_tokenizer

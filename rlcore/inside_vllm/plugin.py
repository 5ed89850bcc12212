"""vLLM's plugin entry point: every vLLM process calls `register` when it starts, so this imports nothing heavy."""

import contextlib

BACKEND = "rlcore"
"""The name of our weight-transfer backend in vLLM."""
ADAPTERS = "policy"
"""The name of the policy's adapters in vLLM."""


def register() -> None:
    """Makes the weight-transfer backend `rlcore` known to vLLM; calling it again changes nothing."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    with contextlib.suppress(ValueError):  # it is registered already
        WeightTransferEngineFactory.register_engine(BACKEND, "rlcore.inside_vllm.worker", "SharedWeightsEngine")

"""A worker of vLLM whose layers compute with plain weights on the CPU, as they do on a GPU; name it in `args`."""

from vllm import _custom_ops

_custom_ops._supports_onednn = False  # what vLLM packs weights for, when it loads a model after this


class PlainWeights:
    """It adds nothing to the worker: vLLM imports this module before it loads a model."""

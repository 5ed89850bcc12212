"""Reading the whole weights of a model that ZeRO-3 may have split over the ranks."""

from collections.abc import Iterator

from torch import Tensor, nn

BUCKET_BYTES = 512 << 20
"""Most memory that gathered parameters take at once (one larger parameter alone is still gathered whole)."""


def gathered_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """`(name, tensor)` of every parameter of `model`; ZeRO-3 parts are gathered by bucket, by all ranks together.

    A gathered tensor is valid only until the next one is asked for.
    """
    named = [(name, parameter.data) for name, parameter in model.named_parameters()]
    if not any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        yield from named
        return
    import deepspeed  # takes seconds

    for bucket in _buckets(list(model.named_parameters())):
        with deepspeed.zero.GatheredParameters([parameter for _, parameter in bucket]):
            for name, parameter in bucket:
                yield name, parameter.data


def _buckets(named: list[tuple[str, nn.Parameter]]) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """Consecutive parameters of at most `BUCKET_BYTES`, by `ds_numel`: `numel()` of a split parameter is 0."""
    bucket: list[tuple[str, nn.Parameter]] = []
    size = 0
    for name, parameter in named:
        needed = parameter.ds_numel * parameter.element_size()  # type: ignore[attr-defined]
        if bucket and size + needed > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, parameter))
        size += needed
    if bucket:
        yield bucket

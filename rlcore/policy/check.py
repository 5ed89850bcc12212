"""Whether saved parameters are those of this model."""

from collections.abc import Mapping, Sequence

from torch import nn

from rlcore.errors import UserError


def parameter_shapes(model: nn.Module) -> dict[str, list[int]]:
    """Name and full shape of every parameter, also where ZeRO-3 keeps only a part of it here (`ds_shape`)."""
    return {name: list(getattr(parameter, "ds_shape", parameter.shape)) for name, parameter in model.named_parameters()}


def check_same_parameters(model: nn.Module, saved: Mapping[str, Sequence[int]], told: str) -> None:
    """Raises UserError, which begins with `told`, naming the first parameter in which model and `saved` differ."""
    mine = parameter_shapes(model)
    for name in {**mine, **saved}:
        if name not in saved:
            raise UserError(f"{told}: it has no parameter {name}")
        if name not in mine:
            raise UserError(f"{told}: it has a parameter {name}, the recipe's model does not")
        if list(saved[name]) != mine[name]:
            raise UserError(
                f"{told}: {name} is {_shape(saved[name])} there and {_shape(mine[name])} in the recipe's model"
            )


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) or "a scalar"

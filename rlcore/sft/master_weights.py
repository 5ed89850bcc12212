"""AdamW for a policy in half precision, most of whose steps at a small learning rate would round to nothing."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist


class MasterAdamW(torch.optim.AdamW):
    """Steps float32 copies of the parameters and rounds them into these.

    Each of `world` processes steps its own share of the parameters, for which alone it has copies and moments, and
    hands them to the others, as ZeRO-1 does. All have the same gradients.
    """

    def __init__(self, params: Iterable[Any], *, rank: int = 0, world: int = 1, **settings: Any):
        super().__init__(params, **settings)
        self._owned: list[tuple[torch.Tensor, int]] = []
        self._copied: list[tuple[torch.Tensor, torch.Tensor]] = []
        sizes = [0] * world
        for group in self.param_groups:
            weights, group["params"] = group["params"], []
            for weight in weights:
                owner = sizes.index(min(sizes))
                sizes[owner] += weight.numel()
                self._owned.append((weight, owner))
                if owner == rank:
                    group["params"].append(weight.detach().float())
                    self._copied.append((weight, group["params"][-1]))
        self._shared = world > 1

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for weight, copy in self._copied:
            copy.grad = None if weight.grad is None else weight.grad.float()
        loss = super().step(closure)
        with torch.no_grad():
            for weight, copy in self._copied:
                weight.copy_(copy)
                copy.grad = None
            if self._shared:
                for weight, owner in self._owned:
                    dist.broadcast(weight, owner)
        return loss

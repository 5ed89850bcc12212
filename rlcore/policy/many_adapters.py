"""Low-rank adapters of several problems in one model: each row of a batch goes through those of its own problem.

Hu et al. 2021, "LoRA" (arXiv 2106.09685). P problems, R rows of T tokens; a layer has I inputs and O outputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from rlcore.errors import UserError
from rlcore.policy.lora import is_target
from rlcore.recipe.schema import LoraConfig


class ManyAdapters:
    """The adapters of P problems in the layers of a model, and which of them the rows of the next pass go through."""

    def __init__(self, layers: Sequence["_Adapted"]):
        self._layers = layers
        self.parameters: list[nn.Parameter] = [part for layer in layers for part in (layer.down_PrI, layer.up_POr)]
        """float32, with the problems first."""

    def aim(self, owner_R: Tensor, *, dropout: bool = False) -> None:
        """Row r of the passes from here on goes through the adapters of problem `owner_R[r]`."""
        for layer in self._layers:
            layer.owner_R, layer.dropping = owner_R, dropout

    def clip(self, most: float) -> None:
        """Scales the gradient of each problem down to the norm `most`."""
        gradients = [part.grad.flatten(1) for part in self.parameters if part.grad is not None]
        norm_P = torch.linalg.vector_norm(torch.cat(gradients, dim=1), dim=1)
        scale_P1 = (most / (norm_P + 1e-6)).clamp(max=1.0)[:, None]  # as torch's clip_grad_norm_
        for gradient in gradients:
            gradient.mul_(scale_P1)


@contextmanager
def many_adapters(model: PreTrainedModel, section: LoraConfig, seeds: Sequence[int]) -> Iterator[ManyAdapters]:
    """Puts adapters for each of P problems into the model, random from its seed and without effect at first.

    Nothing else in the model is trained meanwhile. Afterwards it is what it was, bit for bit. Raises UserError for
    targets that the model does not have.
    """
    trained = [parameter.requires_grad for parameter in model.parameters()]
    found = dict(_targets(model, section))
    if not found:
        raise UserError(f"adapt.lora.targets: the model has no linear layers of these names: {section.targets}")
    model.requires_grad_(False)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    layers = {name: _Adapted(layer, section, generators) for name, layer in found.items()}
    for name, layer in layers.items():
        _put(model, name, layer)
    try:
        yield ManyAdapters(list(layers.values()))
    finally:
        for name, base in found.items():
            _put(model, name, base)
        for parameter, was_trained in zip(model.parameters(), trained, strict=True):
            parameter.requires_grad = was_trained


def _targets(model: PreTrainedModel, section: LoraConfig) -> Iterator[tuple[str, nn.Linear]]:
    head = model.get_output_embeddings()
    for name, layer in model.named_modules():
        if is_target(name, section) and isinstance(layer, nn.Linear) and layer is not head:
            yield name, layer


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


class _Adapted(nn.Module):
    """A linear layer with one adapter for each problem: x · W + α / r · x · A · B (equation 3 of LoRA)."""

    def __init__(self, base: nn.Linear, section: LoraConfig, generators: Sequence[torch.Generator]):
        super().__init__()
        self.base, self._scaling, self._dropout = base, section.alpha / section.rank, section.dropout
        size, device = (section.rank, base.in_features), base.weight.device
        uniform_PrI = torch.stack([torch.rand(size, generator=generator) for generator in generators])
        # The interval is that of peft, and of torch's own layers.
        self.down_PrI = nn.Parameter(((2 * uniform_PrI - 1) / base.in_features**0.5).to(device))
        self.up_POr = nn.Parameter(torch.zeros(len(generators), base.out_features, section.rank, device=device))
        self.owner_R: Any = None
        self.dropping = False

    def forward(self, states: Tensor) -> Tensor:
        output = self.base(states)
        inner = functional.dropout(states.float(), self._dropout, self.dropping)
        if len(self.down_PrI) == 1:
            added = inner @ self.down_PrI[0].T @ self.up_POr[0].T
        elif states.dim() == 3 and len(states) == len(self.owner_R):
            added = inner @ self.down_PrI[self.owner_R].mT @ self.up_POr[self.owner_R].mT
        else:
            raise UserError("this model takes the rows of a batch apart, so adapters go one by one: adapt.together=1")
        return torch.add(output, added.to(output.dtype), alpha=self._scaling)

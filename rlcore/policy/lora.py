"""Low-rank adapters inside a model that keeps its class: put in, switched off for a while, merged, written alone."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlcore.errors import UserError, one_line
from rlcore.files import by_umask
from rlcore.recipe.schema import LoraConfig

if TYPE_CHECKING:
    import peft

ADAPTER = "default"


def is_target(name: str, section: LoraConfig) -> bool:
    """Whether a linear layer of this name gets an adapter: its name is a target, or ends with one after a dot."""
    return section.targets == "all-linear" or any(f".{name}".endswith(f".{target}") for target in section.targets)


def add_lora(model: PreTrainedModel, section: LoraConfig, seed: int) -> None:
    """Freezes the model and puts adapters into it, random from `seed` but without effect until they are trained.

    Raises UserError for targets that the model does not have, or that are not plain layers inside it.
    """
    from peft import inject_adapter_in_model  # takes seconds

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(lora_config(section), model)
    except ValueError as error:
        raise UserError(f"model.lora: {one_line(error)[:300]}") from None
    layers = lora_layers(model).values()
    if model.get_output_embeddings() in layers or model.get_input_embeddings() in layers:
        raise UserError("model.lora.targets: the embedding and the output head take no adapter")
    for parameter in model.parameters():
        if parameter.requires_grad:  # on the model's device and in its dtype: the master weights are float32 anyway
            parameter.data = parameter.data.to(model.device, model.dtype)


def adapters_without_effect(model: PreTrainedModel, section: LoraConfig) -> Iterator[tuple[str, Tensor]]:
    """`(name, zeros)` of every parameter that `add_lora` would put into a model; the model is left as it is."""
    with torch.device("meta"):
        shell = type(model)(model.config)
    add_lora(shell, section, seed=0)
    for name, parameter in shell.named_parameters():
        if is_adapter(name):
            yield name, torch.zeros(parameter.shape, dtype=model.dtype)


def lora_config(section: LoraConfig) -> "peft.LoraConfig":
    """The adapters as peft describes them."""
    import peft

    return peft.LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,  # type: ignore[arg-type]
        target_modules=section.targets,
        lora_dropout=section.dropout,
        task_type="CAUSAL_LM",
    )


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """The layers of a model that have an adapter, by name."""
    if "peft" not in sys.modules:
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def lora_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before its adapters, for as long as this lasts."""
    layers = lora_layers(model).values()
    try:
        for layer in layers:
            layer._disable_adapters = True  # peft's own switch would also change which parameters are trained
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


@contextmanager
def lora_dropout(model: nn.Module) -> Iterator[None]:
    """The adapters' dropout is on for as long as this lasts, while the model's own stays off."""
    dropouts = [layer.lora_dropout for layer in lora_layers(model).values()]
    try:
        for dropout in dropouts:
            dropout.train()
        yield
    finally:
        for dropout in dropouts:
            dropout.eval()


def merged_weight(layer: Any) -> Tensor:
    """The weight of a plain layer that does what this one does with its adapter, in the dtype of its base."""
    base = whole_weight(layer.get_base_layer())
    return (base.float() + layer.get_delta_weight(ADAPTER).float()).to(base.dtype)


def present_weight(layer: Any) -> Tensor:
    """A layer's weight, with its adapter merged if it has one."""
    return merged_weight(layer) if hasattr(layer, "get_delta_weight") else whole_weight(layer)


def whole_weight(layer: Any) -> Tensor:
    """The weight of a layer without an adapter, which may be quantised."""
    if not quantized(layer.weight):
        return layer.weight.data
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(layer).data


def quantized(parameter: nn.Parameter) -> bool:
    """Whether what it holds are codes of a quantised weight."""
    return hasattr(parameter, "quant_state")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is an adapter's."""
    return ".lora_" in name


def save_adapter(folder: Path, section: LoraConfig, tensors: Mapping[str, Tensor], base: str | None) -> None:
    """Writes adapters as peft does. `tensors` are called as in the model, which was loaded from `base`."""
    named = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": tensors[name].contiguous() for name in tensors}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = lora_config(section)
    config.base_model_name_or_path = base
    config.save_pretrained(str(folder))
    by_umask([folder / "adapter_model.safetensors"])


def plain_name(name: str) -> str:
    """A parameter's name in the model without adapters."""
    return name.replace(".base_layer.", ".")

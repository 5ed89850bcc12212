"""Loading and saving a policy, and whether saved parameters are those of a model."""

import copy
import importlib.util
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from rlcore.errors import UserError, nearest_path, one_line
from rlcore.files import by_umask, move_into_place, seal_files, writing
from rlcore.hub import hub_or_cache
from rlcore.policy.scratch import scratch_model, scratch_tokenizer
from rlcore.recipe.schema import ModelConfig

OWN_CODE = "it brings Python of its own, which would run here: read it, then say model.trust_remote_code=true"


@dataclass(frozen=True)
class Policy:
    """A causal language model and its tokenizer, which has a chat template, a pad token and an end token."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_policy(section: ModelConfig, texts: Iterable[str] = (), seed: int = 0, *, embedded: bool = True) -> Policy:
    """The policy of a recipe, on the CPU. A `scratch` one has random weights from `seed`, its tokenizer learns `texts`.

    `embedded`: the embedded engine samples from this model, which leaves no choice of attention. Quantised weights go
    straight to the CUDA device where there is one.

    Raises UserError for a missing folder, unreadable or incomplete weights, a hub that does not answer, a missing or
    broken chat template, or a tokenizer that does not fit the model.
    """
    if section.scratch is None:
        policy = _from_pretrained(section, embedded)
    else:
        tokenizer = scratch_tokenizer(texts, section.scratch.vocab_size)
        model = scratch_model(section.scratch, tokenizer, seed).to(getattr(torch, section.dtype))
        policy = Policy(model, tokenizer)
    _prepare(policy.tokenizer, section)
    known = policy.model.config.get_text_config().vocab_size
    if len(policy.tokenizer) > known:
        name = section.path or "model.scratch"
        raise UserError(f"tokenizer of {name} has {len(policy.tokenizer)} tokens, its model only {known}")
    return policy


def load_tokenizer(section: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy that is not `scratch`, as `load_policy` gives it. Raises UserError as that does."""
    tokenizer = _read_tokenizer(str(section.path), section.trust_remote_code)
    _prepare(tokenizer, section)
    return tokenizer


def load_config(section: ModelConfig) -> PretrainedConfig:
    """The configuration of a policy that is not `scratch`, without its weights. Raises UserError where it has none."""
    path = str(section.path)
    with _refused(f"configuration of {path} cannot be loaded"), hub_or_cache(path):
        config: PretrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=section.trust_remote_code)
    return config


def save_policy(policy: Policy, folder: str | Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Writes a plain Hugging Face folder, with `weights` in place of the model's own if given.

    Raises UserError if it cannot be written.
    """
    with _refused(f"the policy cannot be written to {folder}"):
        Path(folder).mkdir(parents=True, exist_ok=True)  # save_pretrained only logs where this raises
        model = _whole(policy.model)
        kept, own = model.state_dict(), policy.model.named_buffers()
        buffers = {name: buffer for name, buffer in own if name in kept}  # such as a router's biases
        model.save_pretrained(folder, state_dict=None if weights is None else buffers | dict(weights))
        policy.tokenizer.save_pretrained(folder)
        by_umask(path for path in Path(folder).iterdir() if path.is_file())


def place_policy(policy: Policy, place: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """As `save_policy`, whole or not at all; an existing folder is replaced."""
    partial = place.with_name(f"partial-{place.name}")
    shutil.rmtree(partial, ignore_errors=True)
    save_policy(policy, partial, weights)
    with writing(f"policy folder {place}"):
        seal_files(partial, partial.iterdir())
        move_into_place(partial, place)


def stop_ids(policy: Policy) -> tuple[int, ...]:
    """Ids of the tokens that end an attempt: the tokenizer's end token and those of the model's generation settings."""
    configured = getattr(policy.model.generation_config, "eos_token_id", None)
    ids = [policy.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    return tuple(sorted({token for token in ids if token is not None}))


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
            there, here = (" x ".join(map(str, shape)) or "a scalar" for shape in (saved[name], mine[name]))
            raise UserError(f"{told}: {name} is {there} there and {here} in the recipe's model")


def _from_pretrained(section: ModelConfig, embedded: bool) -> Policy:
    path = str(section.path)
    could_be_hub = path.count("/") < 2 and not path.startswith((".", "/", "~"))
    if not could_be_hub and not Path(path).is_dir():
        raise UserError(f"model folder {path} does not exist{nearest_path(path)}")
    if (Path(path) / "adapter_config.json").is_file():  # transformers would load the base and lose the adapters later
        raise UserError(
            f"model.path {path} holds LoRA adapters, not a whole model: merge them into their base (peft's "
            "merge_and_unload), and give the folder of the merged model"
        )
    with _refused(f"model {path} cannot be loaded"), hub_or_cache(path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=section.dtype,
            trust_remote_code=section.trust_remote_code,
            attn_implementation=_attention(section, embedded),
            output_loading_info=True,
            **_quantized(section),
        )
    model, report = loaded
    _keep_unpacked(model)
    if report["missing_keys"]:  # transformers fills them with random numbers
        lacking = sorted(report["missing_keys"])
        raise UserError(f"model {path} is incomplete: its weights lack {lacking[0]} (and {len(lacking) - 1} more)")
    return Policy(model, _read_tokenizer(path, section.trust_remote_code))


def _attention(section: ModelConfig, embedded: bool) -> str:
    """The attention of `model.attention`; auto takes FlashAttention where it is installed and can be used."""
    if section.attention != "auto":
        return section.attention
    if embedded or not torch.cuda.is_available() or section.dtype == "float32":
        return "sdpa"
    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"


def _quantized(section: ModelConfig) -> dict[str, Any]:
    """How transformers loads the frozen weights of QLoRA (Dettmers et al. 2023): NF4, its constants quantised again."""
    if section.lora is None or section.lora.quantize == "none":
        return {}
    check_quantize(section)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=section.dtype,
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": settings, "device_map": {"": device}}


def check_quantize(section: ModelConfig) -> None:
    """Raises UserError if the weights are to be quantised without the package that does it."""
    wanted = section.lora is not None and section.lora.quantize != "none"
    if wanted and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("model.lora.quantize needs bitsandbytes: pip install 'rlcore[qlora]'")


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes from packing weights in four bits for processors with AVX512-BF16, as it does without asking.

    Packed ones have no gradients, and peft reads them as if they were not packed.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _whole(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or for a quantised one its shell without weights, which saves those it is given as they are."""
    if getattr(model, "hf_quantizer", None) is None:
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        whole = torch.nn.Module.to(type(model)(config), model.dtype)
    whole.generation_config = model.generation_config
    return whole


def _read_tokenizer(path: str, trusted: bool) -> PreTrainedTokenizerBase:
    with _refused(f"tokenizer of {path} cannot be loaded"), hub_or_cache(path):
        # AutoTokenizer would put Qwen2's splitting into a Qwen2 folder whose tokenizer.json says all there is to say
        whole = get_tokenizer_config(path).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
        kind = PreTrainedTokenizerFast if whole else AutoTokenizer
        tokenizer = kind.from_pretrained(path, trust_remote_code=trusted)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _prepare(tokenizer: PreTrainedTokenizerBase, section: ModelConfig) -> None:
    """Gives it the recipe's chat template, if there is one, and holds what a conversation needs against it."""
    name = section.path or "model.scratch"
    if section.chat_template is not None:
        tokenizer.chat_template = section.chat_template
    if tokenizer.chat_template is None:
        raise UserError(f"tokenizer of {name} has no chat template; give one as model.chat_template")
    with _refused(f"chat template of {name} does not work"):
        _try_template(tokenizer)
    if tokenizer.eos_token is None:
        raise UserError(f"tokenizer of {name} has no end token (eos_token), so no attempt could end")


def _try_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Renders a turn as text, or in parts, as templates of models that see images want it; else raises as the first."""
    failures: list[Exception] = []
    contents: list[Any] = ["?", [{"type": "text", "text": "?"}]]
    for content in contents:
        try:
            tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
            return
        except Exception as error:  # a template is a program
            failures.append(error)
    raise failures[0]


@contextmanager
def _refused(told: str) -> Iterator[None]:
    """UserError that begins with `told` for whatever goes wrong: broken files, programs in them and full disks make
    transformers and the tokenizers library raise no narrower class than Exception."""
    try:
        yield
    except Exception as error:
        reason = OWN_CODE if "trust_remote_code" in str(error) else one_line(error)
        raise UserError(f"{told}: {reason}") from None

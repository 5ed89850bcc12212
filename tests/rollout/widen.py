"""The quickstart's policy in a shape that vLLM's CPU attention takes: heads of 32 numbers where it has heads of 24."""

import math
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM


def widened_policy(source: Path, folder: Path, head_size: int = 32) -> Path:
    """Writes a model to `folder` that computes the same function as the one in `source`: the rest is zeros.

    Rotary frequencies and the scale of attention depend on the head size, RMSNorm on the hidden size; the base of the
    frequencies, the queries and the norms make up for it.
    """
    model = Qwen2ForCausalLM.from_pretrained(source, dtype=torch.float32)
    old = model.config.to_dict()
    heads = old["num_attention_heads"]
    narrow = old["hidden_size"] // heads
    assert old["num_key_value_heads"] == heads
    growth = head_size / narrow
    rope = dict(old["rope_parameters"])
    config = Qwen2Config.from_dict(
        {
            **old,
            "hidden_size": heads * head_size,
            "rms_norm_eps": old["rms_norm_eps"] / growth,
            "rope_parameters": {**rope, "rope_theta": rope["rope_theta"] ** growth},
        }
    )
    half, wide_half = narrow // 2, head_size // 2
    turned = [h * head_size + at for h in range(heads) for at in (*range(half), *range(wide_half, wide_half + half))]
    plain = [h * head_size + at for h in range(heads) for at in range(narrow)]
    hidden = list(range(old["hidden_size"]))
    rows = {"q_proj": turned, "k_proj": turned, "v_proj": plain, "o_proj": hidden, "down_proj": hidden, "norm": hidden}
    scales = {"q_proj": math.sqrt(growth), "norm": 1 / math.sqrt(growth)}
    wide = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in wide.named_parameters():
            value = model.get_parameter(name)
            kind = next((kind for kind in (*rows, "layernorm") if kind in name), "")
            kind = "norm" if kind == "layernorm" else kind
            value = value * scales.get(kind, 1)
            parameter.zero_()
            where = torch.tensor(rows.get(kind, range(len(value))))
            if value.ndim == 1:
                parameter[where] = value
                continue
            columns = plain if kind == "o_proj" else hidden if value.shape[1] == old["hidden_size"] else None
            columns = torch.tensor(range(value.shape[1]) if columns is None else columns)
            parameter[where[:, None], columns] = value
    wide.generation_config = model.generation_config
    wide.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder

"""Publication of weights, to servers and to vLLM in this process, against a plain copy of the same bytes.

    python -m tests.bench.publication [--device cuda] [--large]

Writing the file for servers is measured everywhere; with vLLM and an installed rlcore, so are the whole publication of
a random Qwen2 model in process (load), and to a real server (write, pause, load, resume). Copies and publications take
turns. A plain copy is `tensor.copy_` of every parameter into memory
that has been used before, as a publication's file has. `--large` takes the shape of Qwen2.5-0.5B, in bfloat16.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from rlcore.recipe.schema import RolloutConfig
from rlcore.rollout.servers.engine import ServersEngine
from rlcore.rollout.servers.shared_weights import SharedWeights
from rlcore.rollout.vllm.in_process import InProcessEngine

REPEATS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    model = (_large() if options.large else _small()).to(options.device)
    weights = [(name, parameter.data) for name, parameter in model.named_parameters()]
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in weights)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads, {size / 1e6:.0f} MB")
    targets = [torch.empty(tensor.shape, dtype=tensor.dtype) for _, tensor in weights]

    def copy() -> None:
        for (_, tensor), target in zip(weights, targets, strict=True):
            target.copy_(tensor)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        shared = SharedWeights(Path(folder), model)
        _compare("file written", lambda: list(shared.write(weights)), copy, size)
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not installed: nothing to publish to")
        return
    with (
        tempfile.TemporaryDirectory() as logs
    ):  # a server first: vLLM in this process leaves settings in the environment
        section = _section({"mode": "servers", "start_servers": 1})
        servers = ServersEngine(section, model, [1], 64, Path(logs))
        try:
            _compare("published to a server", partial(servers.publish, weights, 1), copy, size)
        finally:
            servers.close()
    inside = InProcessEngine(_section({}), model, None, stop_ids=[1], max_tokens=64)
    _compare("published in process", partial(inside.publish, weights, 1), copy, size)
    inside.close()


def _section(mode: dict[str, object]) -> RolloutConfig:
    vllm = {"args": {"kv_cache_memory_bytes": 1 << 28}}
    return RolloutConfig.model_validate({"engine": "vllm", "slots": 16, "vllm": vllm, **mode})


def _compare(what: str, ours: Callable[[], object], copy: Callable[[], None], size: int) -> None:
    ours()  # both files exist from here on
    ours()
    copy()
    pairs = [(_seconds(ours), _seconds(copy)) for _ in range(REPEATS)]
    mine, plain = (size / median(column) / 1e9 for column in zip(*pairs, strict=True))
    ratios = [ours / copy for ours, copy in pairs]
    print(f"{what}: {mine:.2f} GB/s, plain copy {plain:.2f} GB/s: {median(ratios):.2f} times as long", end="")
    print(f" (of {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _small() -> PreTrainedModel:
    return _random(
        Qwen2Config(
            vocab_size=8192,
            hidden_size=512,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            intermediate_size=1536,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            dtype=torch.float32,
        )
    )


def _large() -> PreTrainedModel:
    return _random(
        Qwen2Config(
            vocab_size=151936,
            hidden_size=896,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            intermediate_size=4864,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            dtype=torch.bfloat16,
        )
    )


def _random(config: Qwen2Config) -> PreTrainedModel:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).eval().to(config.dtype)


if __name__ == "__main__":
    main()

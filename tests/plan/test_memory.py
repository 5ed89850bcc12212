"""The plan's memory against what DeepSpeed, autograd and the embedded engine really allocate."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from measured import CONFIG
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.learner.layers import checkpoint_layers
from rlcore.plan import memory
from rlcore.plan.lengths import longest_conversation
from rlcore.plan.memory import activation_bytes, adapt_parts, kv_cache_bytes, learner_parts, memory_parts, merged_bytes
from rlcore.plan.shapes import model_shapes, shapes_of
from rlcore.policy import Policy
from rlcore.policy.many_adapters import many_adapters
from rlcore.policy.scratch import scratch_tokenizer
from rlcore.recipe import Recipe
from rlcore.recipe.schema import LoraConfig
from rlcore.rollout import Sampling, TorchEngine
from rlcore.rollout.embedded import products
from rlcore.rollout.embedded.decoder import FewOperations
from rlcore.sft.trainer import SftSchedule, train_supervised
from rlcore.train.few_steps import Row, learn
from tests.processes import torchrun

SCRIPT = Path(__file__).with_name("measured.py")
ARMS = {
    1: ["0,float32", "3,float32", "1,bfloat16", "1,bfloat16,optimizer", "3,float32,optimizer"],
    2: [
        *("0,float32", "2,float32", "3,float32", "1,bfloat16", "2,bfloat16", "3,bfloat16"),
        *("2,float32,optimizer", "2,bfloat16,optimizer", "3,bfloat16,optimizer"),
    ],
}
"""By number of processes."""
KEPT = ("weights", "master weights (float32)", "optimizer (Adam, float32)", "gradients (float32)", "reduce bucket")
KEPT += ("weights between host and device",)


def recipe(zero: int, dtype: str, offload: Sequence[str] = ()) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "plan",
            "model": {"path": "none", "dtype": dtype},
            "data": {"source": "arithmetic"},
            "rewards": {"functions": [{"name": "pair_sum"}]},
            "stages": [],
            "learner": {"zero": zero, "offload": list(offload)},
        }
    )


def bytes_for_backward(model: Qwen2ForCausalLM, tokens: int) -> int:
    """Bytes beside the weights that autograd keeps of the layers' forward pass."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.base_model(input_ids=torch.zeros(1, tokens, dtype=torch.int64), use_cache=False)[0]
    assert states.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> dict[int, dict[str, int]]:
    """Bytes of the first rank, by number of processes."""
    output = tmp_path_factory.mktemp("held") / "held.json"
    measured = {}
    for processes, arms in ARMS.items():
        done = torchrun(processes, SCRIPT, output, *arms)
        assert done.returncode == 0, done.stderr[-3000:]
        measured[processes] = json.loads(output.read_text())
    return measured


@pytest.mark.parametrize(("processes", "arm"), [(processes, arm) for processes in ARMS for arm in ARMS[processes]])
def test_a_rank_holds_what_the_plan_says_at_an_optimizer_step(held, arm, processes):
    zero, dtype, *away = arm.split(",")
    shapes = shapes_of(Qwen2Config(**CONFIG), "tiny")
    parts = learner_parts(recipe(int(zero), dtype, away), shapes, processes)
    planned = sum(part.learning + part.host for part in parts if part.name in KEPT)
    assert held[processes][arm] == pytest.approx(planned, rel=0.02)


@pytest.mark.parametrize(
    ("zero", "dtype", "on_device", "on_host"),
    [(1, "bfloat16", 4, 4 / 8), (2, "bfloat16", 4 / 8, 4 / 8), (2, "float32", 0, 8 / 8), (3, "bfloat16", 0, 8 / 8)],
)
def test_gradients_lie_where_deepspeed_adds_them_up(zero, dtype, on_device, on_host):
    """Bytes of a parameter on eight ranks, with a second copy on the host that the optimizer there steps with."""
    shapes = shapes_of(Qwen2Config(**CONFIG), "tiny")
    parts = learner_parts(recipe(zero, dtype, ["optimizer"]), shapes, 8)
    held = next(part for part in parts if part.name.startswith("gradients"))
    assert (held.learning, held.host) == (on_device * shapes.parameters, on_host * shapes.parameters)


@pytest.mark.parametrize("tied", [True, False])
def test_shapes_are_those_of_the_model(tied):
    config = Qwen2Config(**{**CONFIG, "tie_word_embeddings": tied})
    shapes, model = shapes_of(config, "tiny"), Qwen2ForCausalLM(config)
    assert shapes.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shapes.tied == tied
    computed = shapes.parameters if tied else shapes.parameters - model.get_input_embeddings().weight.numel()
    assert shapes.computed == computed
    assert shapes.kv_size == 64


def test_adapters_are_as_many_as_peft_makes():
    import peft

    config = Qwen2Config(**CONFIG)
    for targets in ("all-linear", ["q_proj", "down_proj"]):
        model = peft.get_peft_model(Qwen2ForCausalLM(config), peft.LoraConfig(r=4, target_modules=targets))
        made = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert shapes_of(config, "tiny", LoraConfig(rank=4, targets=targets)).adapter_parameters == made


def test_a_config_file_stands_for_the_model(tmp_path):
    Qwen2Config(**CONFIG).save_pretrained(tmp_path)
    section = recipe(0, "float32").model
    assert model_shapes(section, tmp_path / "config.json").hidden == CONFIG["hidden_size"]


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_activations_are_what_autograd_keeps(dtype, size):
    config, tokens = Qwen2Config(**CONFIG), 512
    measured = bytes_for_backward(Qwen2ForCausalLM(config).to(dtype), tokens)
    planned = activation_bytes(shapes_of(config, "tiny"), tokens, size)
    assert measured == pytest.approx(planned, rel=0.06)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_on_the_host_leave_one_layer_on_the_device(checkpointing):
    values = recipe(0, "float32").model_dump()
    values["learner"] |= {"activation_checkpointing": checkpointing, "offload": ["activations"]}
    values["learner"]["micro_batch_tokens"] = 1
    config, made = Qwen2Config(**CONFIG), Recipe.model_validate(values)
    planned = next(part for part in learner_parts(made, shapes_of(config, "tiny"), 1) if "activ" in part.name)
    model, alone = (Qwen2ForCausalLM(Qwen2Config(**{**CONFIG, "num_hidden_layers": layers})) for layers in (4, 1))
    model.model.norm = alone.model.norm = torch.nn.Identity()  # the layers alone
    if checkpointing:
        checkpoint_layers(model)
    tokens = longest_conversation(made)
    assert planned.host == pytest.approx(bytes_for_backward(model, tokens), rel=0.06)
    assert planned.learning == pytest.approx(bytes_for_backward(alone, tokens), rel=0.06)


@pytest.mark.parametrize("together", [1, 3])
def test_training_at_test_time_keeps_what_the_plan_says(together):
    values = recipe(0, "float32").model_dump() | {"adapt": {"together": together, "batch": 2, "lora": {"rank": 4}}}
    values["conversation"] |= {"attempts": 1, "max_prompt_tokens": 90, "max_attempt_tokens": 10}
    made, config = Recipe.model_validate(values), Qwen2Config(**CONFIG)
    shapes = shapes_of(config, "tiny", made.adapt.lora)
    planned = {part.name.split(" ")[0]: part for part in adapt_parts(made, shapes)}
    model, longest, kept, own = Qwen2ForCausalLM(config), longest_conversation(made), {}, set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    rows = [Row((1,) * (longest - 10), (2,) * 10)] * 2
    with many_adapters(model, made.adapt.lora, seeds=range(together)) as adapters:
        own |= {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        assert sum(parameter.nbytes for parameter in adapters.parameters) == planned["adapters"].sampling
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            learn(model, adapters, [rows] * together, batch=2, lr=0.1, micro_batch_tokens=10**6, seed=0)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert measured == pytest.approx(planned["activations"].learning, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_supervised_rounds_hold_what_the_plan_says(dtype, tmp_path, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)  # accelerate takes it for torchrun's
    values = recipe(2, dtype).model_dump() | {"sft": {"rows": "column"}}
    made, config = Recipe.model_validate(values), Qwen2Config(**CONFIG)
    one, eight = (
        {part.name.split(" (")[0]: part for part in memory_parts(made, shapes_of(config, "tiny"), ranks, 1 << 34)}
        for ranks in (1, 8)
    )
    model, held = torch.nn.Module.to(Qwen2ForCausalLM(config), getattr(torch, dtype)), []

    def measure(optimizer: torch.optim.Optimizer, *called: object) -> None:
        copies = {weight for group in optimizer.param_groups for weight in group["params"]} - set(model.parameters())
        moments = [moment for state in optimizer.state.values() for moment in state.values() if moment.ndim]
        tensors = [*model.parameters()], [w.grad for w in model.parameters()], [*copies, *copies], moments
        held.append([sum(tensor.nbytes for tensor in kept) for kept in tensors])

    hook = register_optimizer_step_post_hook(measure)
    train_supervised(
        Policy(model, scratch_tokenizer(["a"], 300)),
        [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}],
        SftSchedule(steps=1, batch=1, lr=0.1),
        tmp_path,
        seed=0,
        on_step=lambda done: None,
    )
    hook.remove()
    names = ("weights", "gradients", "master weights, their gradients", "optimizer")
    assert [one[name].learning if name in one else 0 for name in names] == held[0]
    assert one["weights"].sampling == one["weights"].learning
    split = 8 if dtype == "bfloat16" else 1
    assert [one["optimizer"].learning, one["gradients"].learning] == [
        split * eight["optimizer"].learning,
        eight["buckets of the gradients"].learning,
    ]


def test_ranks_that_share_sequences_hold_a_part_of_the_longest():
    shapes, held = shapes_of(Qwen2Config(**CONFIG), "tiny"), []
    for sharing in (1, 4):
        values = recipe(0, "float32").model_dump()
        values["conversation"]["max_attempt_tokens"] = 100_000
        values["learner"]["sequence_parallel"] = sharing
        parts = learner_parts(Recipe.model_validate(values), shapes, 4)
        held.append(next(part.learning for part in parts if part.name.startswith("activations")))
    assert held[1] == pytest.approx(held[0] / 4, rel=1e-4)


def test_activations_are_of_no_more_tokens_than_a_batch_has():
    values = recipe(0, "float32").model_dump()
    values["batch"] |= {"problems": 1, "group": 2}
    made = Recipe.model_validate(values)
    (name,) = [
        part.name for part in learner_parts(made, shapes_of(Qwen2Config(**CONFIG), "tiny"), 1) if "act" in part.name
    ]
    assert name == f"activations of {2 * longest_conversation(made):,} tokens"


@pytest.mark.parametrize("most", [0, products.MOST_MERGED], ids=["large", "small"])
def test_the_embedded_engine_keeps_the_planned_cache_and_copies_the_planned_weights(most, monkeypatch):
    monkeypatch.setattr(products, "MOST_MERGED", most)
    monkeypatch.setattr(memory, "MOST_MERGED", most)
    config, slots, tokens = Qwen2Config(**CONFIG), 6, 50
    model, shapes = Qwen2ForCausalLM(config).eval(), shapes_of(config, "tiny")
    engine = TorchEngine(model, [], slots=slots, max_tokens=tokens)
    asyncio.run(engine.sample([1, 2, 3], Sampling(4), key=0, last=True))
    layers = engine._cache.slot_layers
    measured = sum(tensor.nbytes for layer in layers for band in layer.bands for tensor in band)
    assert measured == kv_cache_bytes(shapes, slots, tokens + 1, 4)
    computed = [part for layer in FewOperations(model)._layers for part in vars(layer).values()]
    copied = sum(part._weight_IO.nbytes for part in computed if hasattr(part, "_weight_IO"))
    assert copied == merged_bytes(recipe(0, "float32"), shapes)

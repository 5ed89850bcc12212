"""Adapters published as adapters: the weights under them go to each server once, and to one that comes back."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.errors import UserError
from rlcore.policy.lora import adapters_without_effect
from rlcore.recipe.schema import LoraConfig
from rlcore.rollout import Sample
from tests.rollout.servers.running import Stub, engine, post, sample_all, until, up

LORA = LoraConfig(rank=4, alpha=8)


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    """Stand-ins' log-probabilities are minus the sum of what its embeddings and what the adapters hold."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        tie_word_embeddings=True,
    )
    made = Qwen2ForCausalLM(config).eval()
    made.get_input_embeddings().weight.data.fill_(1.0)
    return made


def adapters(model: Qwen2ForCausalLM, value: float) -> Iterator[tuple[str, Tensor]]:
    return ((name, torch.full_like(zeros, value)) for name, zeros in adapters_without_effect(model, LORA))


def given(stubs: list[Stub], **settings: object) -> dict[str, object]:
    return {"servers": [stub.url for stub in stubs], "deadline": 20.0, "lora": LORA, **settings}


def logprobs(trajectories: list[list[Sample]]) -> set[float]:
    return {logprob for samples in trajectories for sample in samples for logprob in sample.logprobs}


def test_the_weights_are_published_once_and_then_the_adapters_alone(two, model, tmp_path):
    with engine(tmp_path, model, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        sizes = [rollout.metrics()["publish/bytes"]]
        assert logprobs(sample_all(rollout, 8)) == {-1.0}
        for version in (1, 2, 3):
            rollout.publish(adapters(model, version), version)
            assert logprobs(sample_all(rollout, 8)) == {-1.0 - version}
            sizes.append(rollout.metrics()["publish/bytes"])
        (folder,) = tmp_path.glob("rlcore-*")
        assert sorted(path.name for path in folder.iterdir()) == ["adapters-3", "adapters-4", "weights-0"]
        assert rollout.metrics()["servers/up"] == 2
    assert not list(tmp_path.glob("rlcore-*"))
    alone = sum(tensor.nbytes for _, tensor in adapters(model, 0))
    assert sizes == [alone + sum(parameter.nbytes for parameter in model.parameters()), alone, alone, alone]
    for stub in two:  # no KV cache of other adapters is used
        assert {request["salt"].rpartition(":")[2] for request in post(stub.url, "/seen")["seen"]} == {*"0123"}


def test_a_server_that_comes_back_holds_weights_and_current_adapters_before_any_request(two, model, tmp_path):
    with engine(tmp_path, model, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        rollout.publish(adapters(model, 0.5), 1)
        for stub in two:
            post(stub.url, "/behave", {"delay": 0.6})
        sample_all(rollout, 16, then=two[0].kill)
        rollout.publish(adapters(model, 2.0), 2)
        two[0] = Stub(two[0].port)  # somebody starts it again, with weights of its own
        until(lambda: up(rollout) == 2)
        assert logprobs(sample_all(rollout, 16, seed=1)) == {-3.0}
        assert post(two[0].url, "/seen")["seen"]


def test_adapters_that_fail_to_load_take_a_server_out_until_it_holds_all(two, model, tmp_path):
    with engine(tmp_path, model, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        post(two[0].url, "/behave", {"fail": "adapters"})
        rollout.publish(adapters(model, 2.0), 1)
        assert rollout.metrics()["servers/taken_out"] == 1
        assert logprobs(sample_all(rollout, 16)) == {-3.0}
        until(lambda: up(rollout) == 2)  # the publication was made again
        assert logprobs(sample_all(rollout, 16, seed=1)) == {-3.0}


def test_servers_of_an_earlier_run_take_the_adapters_of_the_next(two, model, tmp_path):
    for value in (1.0, 2.0):
        with engine(tmp_path, model, **given(two)) as rollout:
            until(lambda: up(rollout) == 2)
            rollout.publish(adapters(model, value), 1)
            assert logprobs(sample_all(rollout, 8)) == {-1.0 - value}


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ("LoRA is not enabled. Use --enable-lora to enable LoRA.", "--enable-lora"),
        ("LoRA rank 4 is greater than max_lora_rank 1.", "--max-lora-rank"),
        ("'Worker' object has no attribute 'load_adapters'", "--worker-extension-cls rlcore"),
    ],
)
def test_a_server_that_was_started_without_an_option_is_refused_by_its_name(two, model, tmp_path, said, option):
    post(two[1].url, "/behave", {"lacks": said})
    with (
        pytest.raises(UserError, match=rf"^{two[1].url} does not take the adapters: start vllm serve with {option}"),
        engine(tmp_path, model, **given(two)) as rollout,
    ):
        until(lambda: rollout._fleet.check())


def test_a_server_without_the_routes_for_adapters_is_refused_with_the_variable_that_opens_them(two, model, tmp_path):
    post(two[1].url, "/behave", {"without": "_lora_"})
    said = f"^{two[1].url} has no route /v1/load_lora_adapter: .* VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment"
    with pytest.raises(UserError, match=said), engine(tmp_path, model, **given(two)) as rollout:
        until(lambda: rollout._fleet.check())

"""Adapters published as adapters: the weights under them go to each server once, and to one that comes back."""

import asyncio
import copy
import importlib.metadata
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.errors import UserError
from rlcore.learner.zero.weights import gathered_adapters
from rlcore.policy.lora import adapters_without_effect, add_lora
from rlcore.recipe.schema import LoraConfig
from rlcore.rollout import Sample, Sampling
from rlcore.rollout.servers.engine import ServersEngine
from tests.rollout.servers.running import Stub, engine, post, sample_all, section, until, up

LORA = LoraConfig(rank=4, alpha=8)
PROMPT = list(range(20, 90))


def random_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


# Against stand-ins, whose log-probabilities are minus the sum of what the weights and what the adapters hold.


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    made = random_model()
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


# Against one real server.


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A model with adapters, and vLLM with both."""
    if not importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is not installed")
    if not importlib.metadata.entry_points(group="vllm.general_plugins", name="rlcore"):
        pytest.skip("rlcore is not installed here, so vLLM does not find its plugin")
    folder = tmp_path_factory.mktemp("servers")
    made, args = random_model(), {"kv_cache_memory_bytes": 1 << 26}
    settings = section(start_servers=1, weights_folder=str(folder), args=args)
    rollout = ServersEngine(settings, made, [1], 256, folder, lora=LORA)
    add_lora(made, LORA, seed=0)
    try:
        yield made, rollout
    finally:
        rollout.close()


def change(model: Qwen2ForCausalLM, seed: int) -> None:
    """Every matrix of the adapters is random."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in gathered_adapters(model):
            parameter.normal_(std=0.2, generator=draw)


def difference_N(model: Qwen2ForCausalLM, sample: Sample) -> Tensor:
    """How far each log-probability is from the learner's."""
    with torch.no_grad():
        logits_NV = model(torch.tensor([[*PROMPT, *sample.ids]])).logits[0, len(PROMPT) - 1 : -1].double()
    learners_N = logits_NV.log_softmax(-1).gather(-1, torch.tensor(sample.ids)[:, None])[:, 0]
    return (learners_N - torch.tensor(sample.logprobs)).abs()


def draw(rollout: ServersEngine, count: int = 8, then: Callable[[], object] | None = None) -> list[Sample]:
    """`then` is called once the server has requests to answer."""

    async def run() -> list[Sample]:
        sampling = Sampling(max_tokens=24 if then is None else 100)
        asked = [asyncio.create_task(rollout.sample(PROMPT, sampling, key=k, last=True)) for k in range(count)]
        if then:
            await asyncio.to_thread(until, lambda: rollout._fleet.servers[0].requests)
            await asyncio.to_thread(then)
        return await asyncio.gather(*asked)

    return asyncio.run(run())


def test_log_probabilities_are_those_of_the_learners_model_with_its_adapters(real):
    model, rollout = real
    for version in range(3):  # at 0 they have no effect
        drawn = draw(rollout)
        assert {held for sample in drawn for held in sample.versions} == {version}
        assert max(difference_N(model, sample).max() for sample in drawn) < 1e-4
        change(model, version)
        assert min(difference_N(model, sample).max() for sample in drawn) > 1e-2
        rollout.publish(gathered_adapters(model), version + 1)
    assert rollout.metrics()["publish/bytes"] == sum(tensor.nbytes for _, tensor in gathered_adapters(model))


def test_requests_that_run_at_a_publication_go_on_with_the_new_adapters(real):
    model, rollout = real

    async def ask_on(key: int, until: asyncio.Event) -> list[Sample]:
        drawn = []
        while not until.is_set():
            drawn.append(await rollout.sample(PROMPT, Sampling(60 + 4 * key), key=key, last=True))
        return drawn

    async def publish_meanwhile(version: int) -> list[Sample]:
        published = asyncio.Event()
        asking = [asyncio.create_task(ask_on(key, published)) for key in range(16)]
        await rollout.sample(PROMPT, Sampling(30), key=16, last=True)
        await asyncio.to_thread(rollout.publish, gathered_adapters(model), version)
        published.set()
        return [sample for drawn in await asyncio.gather(*asking) for sample in drawn]

    change(model, 4)
    rollout.publish(gathered_adapters(model), 4)
    version, crossed = 4, 0
    while not crossed:  # on a busy machine a publication may come when no answer is half drawn
        version += 1
        assert version < 90
        old = copy.deepcopy(model)
        change(model, version)
        for sample in asyncio.run(publish_meanwhile(version)):
            olds_N, news_N = (difference_N(weights, sample) < 1e-3 for weights in (old, model))
            switch = sum(held < version for held in sample.versions)
            assert sample.versions == (version - 1,) * switch + (version,) * (len(sample.ids) - switch)
            assert olds_N[:switch].all()
            assert news_N[switch:].all()  # the KV cache was computed anew, too
            crossed += 0 < switch < len(sample.ids)


def test_a_server_killed_in_mid_rollout_comes_back_with_the_weights_and_the_current_adapters(real):
    model, rollout = real
    change(model, 90)
    rollout.publish(gathered_adapters(model), 90)
    (process,) = rollout._processes.values()
    drawn = draw(rollout, 48, then=lambda: os.kill(process._process.pid, signal.SIGKILL))
    assert len(drawn) == 48
    assert {held for sample in drawn for held in sample.versions} == {90}
    assert max(difference_N(model, sample).max() for sample in drawn) < 1e-3
    rollout.publish(gathered_adapters(model), 91)
    assert rollout.metrics()["servers/restarted"] == 1

"""A real vLLM server, held against the learner's own model: adapters alone, then all weights."""

import asyncio
import copy
import importlib.metadata
import json
import os
import signal
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoTokenizer

from rlcore.learner.zero.weights import gathered_adapters
from rlcore.policy import load_policy, save_policy
from rlcore.policy.lora import add_lora
from rlcore.recipe.schema import LoraConfig, ModelConfig
from rlcore.rollout import Sample, Sampling
from rlcore.rollout.servers.engine import ServersEngine
from rlcore.rollout.stopping import StopTexts
from tests.processes import rlcore
from tests.rollout.servers.running import section, until
from tests.tiny import write_recipe

pytest.importorskip("vllm", reason="vLLM is not installed")
if not importlib.metadata.entry_points(group="vllm.general_plugins", name="rlcore"):
    pytest.skip("rlcore is not installed here, so vLLM does not find its plugin", allow_module_level=True)

LORA = LoraConfig(rank=4, alpha=8)
STOPS = list(range(6))
PROMPT = list(range(50, 120))
MAX_TOKENS = 200


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The policy of a tiny recipe, of a shape that vLLM's attention takes on a CPU; far from uniform."""
    folder = tmp_path_factory.mktemp("recipe")
    scratch = {"hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1, "vocab_size": 300, "init_std": 0.2}
    made = load_policy(ModelConfig(scratch=scratch), ["Write the letter a 3 times. aeiou"] * 9, 0)
    save_policy(made, folder / "policy")
    made.model.recipe_path = write_recipe(folder, model={"path": str(folder / "policy")}, evaluate=None)
    made.model.eval()
    return made


@pytest.fixture(scope="module")
def adapted(policy, tmp_path_factory):
    """The model with adapters, and the server that was started for it; with a tokenizer, to look for texts."""
    folder, model = tmp_path_factory.mktemp("servers"), copy.deepcopy(policy.model)
    args = {"kv_cache_memory_bytes": 1 << 26, "enable_prompt_tokens_details": True}
    settings = section(start_servers=1, weights_folder=str(folder), args=args).model_copy(update={"stop": ["Quest"]})
    rollout = ServersEngine(settings, model, STOPS, MAX_TOKENS, folder, lora=LORA, tokenizer=policy.tokenizer)
    add_lora(model, LORA, seed=0)
    try:
        yield model, rollout
    finally:
        rollout.close()


@pytest.fixture(scope="module")
def model(policy):
    return policy.model


@pytest.fixture(scope="module")
def url(adapted) -> str:
    """The server, for others to publish to: it is not watched any more."""
    fleet = adapted[1]._fleet
    adapted[1]._thread.call(fleet.close())
    return fleet.urls[0]


@pytest.fixture(scope="module")
def rollout(url, model, tmp_path_factory):
    """All weights are published from here on."""
    folder = tmp_path_factory.mktemp("weights")
    settings = section(servers=[url], weights_folder=str(folder))
    engine = ServersEngine(settings, model, STOPS, MAX_TOKENS, folder)
    try:
        yield engine
    finally:
        engine.close()


def samples(rollout: ServersEngine, count: int, sampling: Sampling, then=None) -> list[Sample]:
    """`then` is called once the server has requests to answer."""

    async def run() -> list[Sample]:
        asked = [asyncio.create_task(rollout.sample(PROMPT, sampling, key=k, last=True)) for k in range(count)]
        if then:
            await asyncio.to_thread(until, lambda: rollout._fleet.servers[0].requests)
            await asyncio.to_thread(then)
        return await asyncio.gather(*asked)

    return asyncio.run(run())


def learners_N(model, prompt, ids, temperature: float) -> torch.Tensor:
    with torch.no_grad():
        logits_NV = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits_NV.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def difference_N(model, sample: Sample, temperature: float = 1.0) -> torch.Tensor:
    """How far each log-probability is from the learner's."""
    return (learners_N(model, PROMPT, sample.ids, temperature) - torch.tensor(sample.logprobs)).abs()


def difference(model, drawn: list[Sample], temperature: float = 1.0) -> float:
    """The largest difference of a log-probability from the learner's."""
    return max(difference_N(model, sample, temperature).max().item() for sample in drawn)


def change_adapters(model: torch.nn.Module, seed: int) -> None:
    """Every matrix of the adapters is random."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in gathered_adapters(model):
            parameter.normal_(std=0.2, generator=draw)


def test_log_probabilities_are_those_of_the_learners_model_with_its_adapters(adapted):
    model, rollout = adapted
    for version in range(3):  # at 0 they have no effect
        drawn = samples(rollout, 8, Sampling(max_tokens=24))
        assert {held for sample in drawn for held in sample.versions} == {version}
        assert difference(model, drawn) < 1e-4
        change_adapters(model, version)
        assert min(difference_N(model, sample).max() for sample in drawn) > 1e-2
        rollout.publish(gathered_adapters(model), version + 1)
    assert rollout.metrics()["publish/bytes"] == sum(tensor.nbytes for _, tensor in gathered_adapters(model))


def test_requests_that_run_at_a_publication_go_on_with_the_new_adapters(adapted):
    model, rollout = adapted

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

    change_adapters(model, 4)
    rollout.publish(gathered_adapters(model), 4)
    version, crossed = 4, 0
    while not crossed:  # on a busy machine a publication may come when no answer is half drawn
        version += 1
        assert version < 90
        old = copy.deepcopy(model)
        change_adapters(model, version)
        for sample in asyncio.run(publish_meanwhile(version)):
            olds_N, news_N = (difference_N(weights, sample) < 1e-3 for weights in (old, model))
            switch = sum(held < version for held in sample.versions)
            assert sample.versions == (version - 1,) * switch + (version,) * (len(sample.ids) - switch)
            assert olds_N[:switch].all()
            assert news_N[switch:].all()  # the KV cache was computed anew, too
            crossed += 0 < switch < len(sample.ids)


def test_a_server_killed_in_mid_rollout_comes_back_with_the_weights_and_the_current_adapters(adapted):
    model, rollout = adapted
    change_adapters(model, 90)
    rollout.publish(gathered_adapters(model), 90)
    (process,) = rollout._processes.values()
    drawn = samples(rollout, 48, Sampling(100), then=lambda: os.kill(process._process.pid, signal.SIGKILL))
    assert len(drawn) == 48
    assert {held for sample in drawn for held in sample.versions} == {90}
    assert difference(model, drawn) < 1e-3
    rollout.publish(gathered_adapters(model), 91)
    assert rollout.metrics()["servers/restarted"] == 1


def test_a_recipe_trains_adapters(url, model, tmp_path):
    settings = f"rollout={{engine: vllm, mode: servers, servers: ['{url}'], vllm: {{weights_folder: {tmp_path}}}}}"
    done = rlcore("train", model.recipe_path, f"output={tmp_path / 'run'}", "model.lora={rank: 4}", settings)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 6
    assert len({step["publish/bytes"] for step in steps}) == 1
    assert steps[0]["publish/bytes"] < 0.2 * sum(parameter.nbytes for parameter in model.parameters())
    assert all(abs(step["learner/mismatch_k1"]) < 1e-4 for step in steps)


def publish(rollout: ServersEngine, model: torch.nn.Module, version: int) -> None:
    rollout.publish(((name, parameter.data) for name, parameter in model.named_parameters()), version)


def ask(url: str, ids: list[int], salt: str, tokens: int, seed: int = 1) -> dict:
    """One request by hand, for what `Sample` does not tell."""
    settings = {"max_tokens": tokens, "seed": seed, "logprobs": 0, "detokenize": False, "ignore_eos": True}
    body = json.dumps({"token_ids": ids, "cache_salt": salt, "sampling_params": settings}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/inference/v1/generate", body, headers)) as answer:
        return json.load(answer)


def test_tokens_stops_and_log_probabilities_are_those_of_the_learners_model(rollout, model):
    drawn = samples(rollout, 32, Sampling(max_tokens=24, temperature=0.7))
    assert difference(model, drawn, 0.7) < 1e-4
    assert {v for s in drawn for v in s.versions} == {0}
    assert len({s.ids for s in drawn}) > 16
    for s in drawn:
        assert not set(s.ids[:-1]) & set(STOPS)
        assert s.finish == ("stop" if s.ids[-1] in STOPS else "length")
        assert s.finish == "stop" or len(s.ids) == 24
    assert {s.finish for s in drawn} == {"stop", "length"}


def test_a_reply_ends_with_the_token_that_ends_a_text(rollout, model):
    tokenizer = AutoTokenizer.from_pretrained(model.recipe_path.parent / "policy")
    (plain,) = samples(rollout, 1, Sampling(60, temperature=0))
    said = [tokenizer.decode(list(plain.ids[:end])) for end in range(1, len(plain.ids) + 1)]
    text = next(character for character in said[-1][len(said[4]) :] if character.isascii() and character.isprintable())
    stop = StopTexts([text], tokenizer.decode)
    (stopped,) = samples(rollout, 1, Sampling(60, temperature=0, stop=stop))
    assert stopped.finish == "stop"
    assert stopped.ids == plain.ids[: stop.end(plain.ids)]
    assert len(stopped.ids) == len(stopped.logprobs) == len(stopped.versions) < len(plain.ids)


def readable(text: str) -> str:
    """The text without what stands for halves of characters, of which servers show fewer."""
    return text.replace("\N{REPLACEMENT CHARACTER}", "")


def test_an_evaluation_by_text_measures_the_model_that_is_served(rollout, model, tmp_path):
    """`evaluate.endpoint` against vLLM's own chat completions: greedy attempts are the model's own, word for word."""
    policy = str(model.recipe_path.parent / "policy")
    recipe = write_recipe(tmp_path, model={"path": policy})
    settings = [f"evaluate.endpoint={rollout._fleet.urls[0]}/v1", "evaluate.samples=2", f"output={tmp_path / 'run'}"]
    done = rlcore("eval", recipe, *settings)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run/eval/attempts-0.jsonl").read_text().splitlines()[1:]
    records = {mode: [r for r in map(json.loads, lines) if r["stage"] == mode] for mode in ("greedy", "sampled")}
    assert [len(found) for found in records.values()] == [8, 16]
    tokenizer = AutoTokenizer.from_pretrained(policy)
    for record in records["greedy"]:
        messages = list(record["messages"])
        for attempt in record["attempts"]:
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            reply = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
            assert readable(attempt["text"]) == readable(tokenizer.decode(reply, skip_special_tokens=True))
            assert attempt["finish"] == ("stop" if reply[-1] == tokenizer.eos_token_id else "length")
            assert attempt["tokens"] == len(reply)
            messages += [{"role": "assistant", "content": attempt["text"]}, {"role": "user", "content": "Check it."}]
    assert len({r["attempts"][0]["text"] for r in records["sampled"]}) > 8, "every request has a seed of its own"


def test_the_second_attempt_finds_the_firsts_cache_but_no_other_versions(rollout):
    url = rollout._fleet.urls[0]
    first = ask(url, PROMPT, "mine", 30)
    ids = [*PROMPT, *first["choices"][0]["token_ids"], 60]

    def cached(salt: str) -> int:
        return (ask(url, ids, salt, 1)["usage"]["prompt_tokens_details"] or {"cached_tokens": 0})["cached_tokens"]

    assert cached("mine") >= len(PROMPT)
    assert cached("another version") == 0


def test_after_a_publication_the_servers_sample_from_every_new_parameter(rollout, model):
    torch.manual_seed(1)
    for version, parameter in enumerate(model.parameters(), start=1):
        before = samples(rollout, 4, Sampling(max_tokens=8))
        with torch.no_grad():
            parameter.mul_(1 + 0.5 * torch.rand_like(parameter)).add_(torch.randn_like(parameter) * 0.1)
        assert difference(model, before) > 1e-3  # the learner has moved on
        publish(rollout, model, version)
        drawn = samples(rollout, 4, Sampling(max_tokens=8))
        assert difference(model, drawn) < 1e-3
        assert {v for s in drawn for v in s.versions} == {version}


def test_requests_that_run_at_a_publication_go_on_with_the_new_weights(rollout, model):
    crossing, version = [], 49
    while not crossing:  # on a busy machine a publication may come when no answer is half drawn
        version += 1
        assert version < 90
        old = copy.deepcopy(model)
        choices = published_meanwhile(rollout, model, version)
        crossing = [choice for choice in choices if len(choice["weight_versions"]) == 2]
    for choice in crossing:
        before, after = choice["weight_versions"]
        assert (before["start"], before["end"], after["end"]) == (0, after["start"], len(choice["token_ids"]))
        assert [int(span["version"].split(":")[1]) < version for span in (before, after)] == [True, False]
        logprobs = torch.tensor([entry["logprob"] for entry in choice["logprobs"]["content"]])
        apart = [(logprobs - learners_N(weights, PROMPT, choice["token_ids"], 1.0)).abs() for weights in (old, model)]
        assert apart[0][: before["end"]].max() < 1e-3
        assert apart[1][before["end"] :].max() < 1e-3  # the KV cache was computed anew, too


def published_meanwhile(rollout, model, version: int) -> list[dict]:
    """The answers to requests that are asked one after the other, 16 at once, while other weights are published."""
    url = rollout._fleet.urls[0]
    published, choices = threading.Event(), []

    def ask_on(seed: int) -> None:
        while not published.is_set():
            choices.append(ask(url, PROMPT, "long", 60 + 4 * seed, seed)["choices"][0])  # they do not all end at once

    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(ask_on, seed) for seed in range(16)]
        until(lambda: choices)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        publish(rollout, model, version)
        published.set()
    assert not any(asked.exception() for asked in asking)
    return choices


def test_conversations_ahead_of_the_learner_go_on_over_a_publication_with_both_versions_told(rollout, model):
    crossing, version = [], 100
    while not crossing:  # on a busy machine a publication may come when no answer is half drawn
        version += 1
        assert version < 140
        old = copy.deepcopy(model)

        def change() -> None:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
            publish(rollout, model, version)  # noqa: B023

        publish(rollout, model, version - 1)
        drawn = samples(rollout, 16, Sampling(120, seed=version, least_version=version - 1), then=change)
        assert all(set(s.versions) <= {version - 1, version} and list(s.versions) == sorted(s.versions) for s in drawn)
        crossing = [s for s in drawn if len(set(s.versions)) == 2]
    for s in crossing:
        at, logprobs = s.versions.index(version), torch.tensor(s.logprobs)
        before, after = ((logprobs - learners_N(weights, PROMPT, s.ids, 1.0)).abs() for weights in (old, model))
        assert max(before[:at].max(), after[at:].max()) < 1e-3
    assert {v for s in samples(rollout, 4, Sampling(8)) for v in s.versions} == {version}, "others ask for the last one"

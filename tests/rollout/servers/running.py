"""Engines over stand-in servers, and ways to make those fail."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import Qwen2Config

from rlcore.recipe.schema import LoraConfig, RolloutConfig
from rlcore.rollout import Sample, Sampling
from rlcore.rollout.servers.engine import ServersEngine
from rlcore.rollout.servers.processes import free_port

STUB = Path(__file__).with_name("stub.py")
MAX_TOKENS = 8


class Stub:
    """A stand-in server that somebody else started."""

    def __init__(self, port: int | None = None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen([sys.executable, str(STUB), "--port", str(self.port)])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def post(url: str, route: str, body: object = None) -> dict:
    """Asks a stand-in directly, waiting for it to listen."""
    data = json.dumps(body).encode() if body is not None else None
    for _ in range(200):
        try:
            with urllib.request.urlopen(urllib.request.Request(url + route, data), timeout=10) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"{url} does not listen")


def section(servers: Sequence[str] = (), start_servers: int = 0, **vllm: object) -> RolloutConfig:
    where = {"servers": list(servers), "start_servers": start_servers}
    return RolloutConfig.model_validate({"engine": "vllm", "mode": "servers", **where, "vllm": vllm})


@contextmanager
def engine(
    folder: Path, model: torch.nn.Module | None = None, lora: LoraConfig | None = None, **settings: object
) -> Iterator[ServersEngine]:
    """An engine whose `weights_folder` is `folder`; it is closed at the end."""
    rollout = section(**{"weights_folder": str(folder), **settings})
    made = ServersEngine(rollout, model or Pretended(), [1], 64, folder / "logs", lora=lora)
    try:
        yield made
    finally:
        made.close()


class Pretended(torch.nn.Module):
    """As much of a model as an engine over stand-ins looks at."""

    config, dtype, device = Qwen2Config(hidden_size=64, num_attention_heads=2), torch.float32, torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(torch.zeros(3))
        self.second = torch.nn.Parameter(torch.zeros(5, 7))


def weights(value: float) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights by which a stand-in's answers are recognised."""
    yield "first", torch.full((3,), float(value))
    yield "second", torch.zeros(5, 7)


def sample_all(
    rollout: ServersEngine, count: int, then: Callable[[], object] | None = None, *, seed: int = 0
) -> list[list[Sample]]:
    """Two attempts of `count` trajectories in groups of four, all at once.

    `then` is called once every server has a request to answer, or when they all have answered.
    """

    sampling = Sampling(MAX_TOKENS, seed=seed)

    async def episode(key: int) -> list[Sample]:
        prompt = [key // 4, 7, 7]
        first = await rollout.sample(prompt, sampling, key=key, last=False)
        return [first, await rollout.sample([*prompt, *first.ids, 9], sampling, key=key, last=True)]

    async def all_of_them() -> list[list[Sample]]:
        episodes = [asyncio.create_task(episode(key)) for key in range(count)]
        if then:
            servers = rollout._fleet.servers
            while not (all(server.requests for server in servers) or all(task.done() for task in episodes)):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(then)
        return await asyncio.wait_for(asyncio.gather(*episodes), 300)

    return asyncio.run(all_of_them())


def until(true: Callable[[], object], seconds: float = 300) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to hold in time"
        time.sleep(0.05)


def up(rollout: ServersEngine) -> int:
    return sum(server.up for server in rollout._fleet.servers)

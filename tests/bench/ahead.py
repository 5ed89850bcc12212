"""Training steps over servers that sleep: what running ahead of the learner gains, and what the simulation says of it.

    python -m tests.bench.ahead [--servers 100] [--spread 0.8 1.2] [--ahead 1 2 4] [--steps 10] [--learning 1.0]
        [--problems 32] [--token 0.01]

100 stand-ins in one process take as long for a reply as it has tokens, drawn from a lognormal distribution, and stand
still while they are paused. The learner sleeps too, as many times as long as a step's sampling takes alone as
`--learning` says. Everything else is what a run does: conversations, routing, the ledger, publications. The simulation
of `rlcore plan` is given the lengths that were really drawn.
"""

import argparse
import asyncio
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import torch
from aiohttp import web

from rlcore.data import load_problems
from rlcore.plan.rates import Rates
from rlcore.plan.simulation import simulate
from rlcore.ranks import Ranks
from rlcore.recipe import Recipe, load_recipe
from rlcore.rollout import Rollout
from rlcore.train.ahead import Ahead
from rlcore.train.base_attempts import BaseAttempts
from rlcore.train.collect import Collector
from rlcore.train.ledger import Ledger
from rlcore.train.made_of import MadeOf
from tests.rollout.scripted import ScriptedScorer, conversation
from tests.rollout.servers.running import engine, until, up, weights
from tests.tiny import write_recipe

ALONE = Ranks(0, 1, torch.device("cpu"))
MEAN, LIMIT = 25, 250
"""Tokens of a reply."""
GROUP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument(
        "--spread", type=float, nargs="+", default=[0.8, 1.2], help="deviation of a length over its mean"
    )
    parser.add_argument("--ahead", type=int, nargs="+", default=[1, 2, 4], help="values of batch.ahead, beside 0")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--learning", type=float, default=1.0, help="the learner's time over a step's sampling")
    parser.add_argument("--problems", type=int, default=32, help="of a step; more than the CPUs can serve only wait")
    parser.add_argument("--token", type=float, default=0.01, help="seconds of a token")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.servers, options.serve, options.token))
        return
    print("| spread | ahead | publication s | step s | times as fast | simulated s | measured / simulated gain |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for spread in options.spread:
        base = learning = None
        for ahead in (0, *options.ahead):
            with sleeping(options, spread) as urls:
                if learning is None:  # how long sampling takes alone
                    learning = options.learning * measure(urls, ahead, options, 0.0)[1]
                seconds, _, published, simulated = measure(urls, ahead, options, learning)
            base = base or (seconds, simulated)
            gain, expected = base[0] / seconds, base[1] / simulated
            times = f"{published:.2f} | {seconds:.2f} | {gain:.2f} | {simulated:.2f}"
            print(f"| {spread} | {ahead} | {times} | {gain / expected:.2f} |", flush=True)


def measure(urls: list[str], ahead: int, options: argparse.Namespace, learning: float) -> tuple[float, ...]:
    """Seconds of a step, of them those that the learner waited and of the publication, and of a simulated step."""
    batch, steps = {"problems": options.problems, "group": GROUP, "ahead": ahead}, options.steps
    total = steps + 2 * ahead
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="rlcore-")))
        rollout = {"engine": "vllm", "mode": "servers", "servers": urls, "deadline": 120.0}
        stages = [{"name": "one", "steps": total + ahead, "kl": [0, 0]}]
        talk = {"max_attempt_tokens": LIMIT, "max_prompt_tokens": 100}
        path = write_recipe(folder, batch=batch, stages=stages, rollout=rollout, conversation=talk, evaluate=None)
        recipe, made = load_recipe(path), conversation(attempts=2, **talk)
        servers = opened.enter_context(engine(folder, servers=urls))
        until(lambda: up(servers) == len(urls))
        collector = collect(recipe, Rollout(recipe, servers, made, ScriptedScorer()), folder)
        opened.enter_context(closing(collector) if isinstance(collector, Ahead) else nullcontext())
        lengths, waited, published, begun = [], 0.0, 0.0, 0.0
        for step in range(total):
            if step == 2 * ahead:
                begun, waited, published = time.perf_counter(), 0.0, 0.0
            since = time.perf_counter()
            groups = collector.collect(step, recipe.stages[0]).groups
            waited += time.perf_counter() - since
            lengths.append([[len(turn.response_ids) for turn in t.turns] for group in groups for t in group])
            time.sleep(learning)
            since = time.perf_counter()
            servers.publish(weights(-step), step + 1)
            published += time.perf_counter() - since
        seconds = (time.perf_counter() - begun) / steps
    rates = Rates(options.token, 0.0, 0.0, 0.0, max(learning, 1e-9), published / steps)
    simulated = simulate(recipe, Drawn(lengths), rates, learners=1, samplers=len(urls), steps=steps, ahead=ahead)
    return seconds, waited / steps, published / steps, simulated.step


def collect(recipe: Recipe, rollout: Rollout, folder: Path) -> Collector:
    problems = load_problems(recipe.data)
    base = BaseAttempts(folder, rollout, ALONE, lambda *_: nullcontext(id), resumed=False)
    if not recipe.batch.ahead:
        return Collector(recipe, ALONE, rollout, problems, base)
    return Ahead(recipe, ALONE, rollout, problems, base, Ledger(folder / "ledger", ALONE, MadeOf([], []), 1), lambda: 0)


class Drawn:
    """Lengths that were drawn, step by step; those of steps that were not trained are the last ones again."""

    prompt, replies = 0, 2

    def __init__(self, lengths: list[list[list[int]]]):
        self._lengths = iter([*lengths, *lengths[-1:] * 8])

    def draw(self, conversations: int, rng: np.random.Generator) -> np.ndarray:
        return np.array(next(self._lengths))


@contextmanager
def sleeping(options: argparse.Namespace, spread: float) -> Iterator[list[str]]:
    """The URLs of stand-ins in one process."""
    numbers = {"servers": options.servers, "token": options.token, "serve": spread}
    words = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.bench.ahead", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def serve(count: int, spread: float, token: float) -> None:
    """Stand-ins that sleep; prints their URLs."""
    urls = []
    for _ in range(count):
        runner = web.AppRunner(stand_in(spread, token))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    print(json.dumps(urls), flush=True)
    await asyncio.Event().wait()


def stand_in(spread: float, token: float) -> web.Application:
    variance = math.log(1 + spread**2)
    label, paused, running = ["default"], asyncio.Event(), asyncio.Event()
    running.set()

    async def sample(seconds: float) -> None:
        while seconds > 0:
            await running.wait()
            since = time.perf_counter()
            with suppress(TimeoutError):
                await asyncio.wait_for(paused.wait(), seconds)
            seconds -= time.perf_counter() - since

    async def generate(request: web.Request) -> web.Response:
        draw = random.Random((await request.json())["sampling_params"]["seed"])
        tokens = round(draw.lognormvariate(math.log(MEAN) - variance / 2, math.sqrt(variance)))
        tokens, begun = min(max(1, tokens), LIMIT), label[0]
        await sample(tokens * token)
        half = tokens if begun == label[0] else tokens // 2
        spans = [{"version": begun, "start": 0, "end": half}, {"version": label[0], "start": half, "end": tokens}]
        choice = {"token_ids": [5] * tokens, "finish_reason": "stop", "weight_versions": spans}
        return web.json_response({"choices": [choice | {"logprobs": {"content": [{"logprob": -1.0}] * tokens}}]})

    async def other(request: web.Request) -> web.Response:
        if request.path in ("/pause", "/resume"):
            now, then = (paused, running) if request.path == "/pause" else (running, paused)
            now.set()
            then.clear()
        if request.path == "/finish_weight_update":
            label[0] = (await request.json())["weight_version"]
        known = {"/weight_info": {"weight_version": label[0]}, "/get_world_size": {"world_size": 1}}
        return web.json_response(known.get(request.path, {}))

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/inference/v1/generate", generate)
    app.router.add_route("*", "/{path:.*}", other)
    return app


if __name__ == "__main__":
    main()

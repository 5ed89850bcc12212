"""The rollout engine over vLLM servers, which all learner ranks share."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlcore.errors import UserError
from rlcore.inside_vllm.plugin import ADAPTERS
from rlcore.policy.lora import adapters_without_effect
from rlcore.ranks import all_gather, present_ranks
from rlcore.recipe import schema
from rlcore.recipe.schema import LoraConfig
from rlcore.rollout.engine import RolloutEngine, Sample, Sampling, publication_metrics
from rlcore.rollout.loop_thread import LoopThread
from rlcore.rollout.sampling import mixed_seed
from rlcore.rollout.servers.board import Board
from rlcore.rollout.servers.fleet import Fleet
from rlcore.rollout.servers.guard import Guard
from rlcore.rollout.servers.keeper import Keeper, Weights
from rlcore.rollout.servers.processes import ServerProcess, free_port, serve_command, server_environment
from rlcore.rollout.servers.shared_weights import SharedWeights
from rlcore.rollout.vllm.adapters import AdapterFolders
from rlcore.rollout.vllm.arguments import describe_model, engine_arguments, server_arguments


class ServersEngine(RolloutEngine):
    """Samples from running servers, or from servers that it starts. Every rank has one, and all publish together.

    Requests, probes and repairs run in a thread with an event loop of its own, even while the learner computes.
    """

    def __init__(
        self,
        section: schema.RolloutConfig,
        model: PreTrainedModel,
        stop_ids: Sequence[int],
        max_tokens: int,
        folder: Path,
        device: torch.device | None = None,
        lora: LoraConfig | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        """`folder` receives the logs of servers started here. The weights of `model` are published as version 0.

        `device`: where the learner computes, by default where the model lies; servers use the same kind. With `lora`,
        only the parameters of such adapters are published from here on. `tokenizer` is needed if `section.stop` has
        texts and servers are started here.

        Raises UserError if no server is available.
        """
        if getattr(model.config, "quantization_config", None) is not None:
            raise UserError("rollout.mode servers takes no model that is quantised already; in_process does")
        self._ranks = present_ranks(device or model.device)
        self._metrics: dict[str, float] = {}
        self._processes: dict[str, ServerProcess] = {}
        self._run = all_gather(secrets.token_hex(4), self._ranks)[0]
        self._direct = _direct(section.vllm, model, self._ranks.rank)
        if self._ranks.first:
            self._guard = Guard()
            try:
                if self._direct is None:
                    self._weights, self._adapters = self._shared_weights(model, section.vllm.weights_folder, lora)
                    self._first_adapters = adapters_without_effect(model, lora) if lora else iter(())
                on_cpu = self._ranks.device.type == "cpu"
                described = describe_model(model, None, folder / "model", tokenizer) if section.start_servers else {}
                arguments = engine_arguments(section, model.config, model.dtype, max_tokens, on_cpu=on_cpu) | described
                self._processes = _processes(section, arguments, folder, self._guard, lora, on_cpu=on_cpu)
            except BaseException:
                self._guard.close()
                raise
        urls = all_gather(list(self._processes) or section.servers, self._ranks)[0]
        self._thread = LoopThread("rollout servers")
        self._board = Board.of(self._ranks, self._run)
        self._fleet = Fleet(section.vllm, urls, stop_ids, ADAPTERS if lora else None)
        self._keeper = Keeper(self._fleet, self._processes) if self._ranks.first else None
        try:
            self._thread.call(self._fleet.open(self._keeper.bring_back if self._keeper else None, self._board))
            self.publish(((name, parameter.data) for name, parameter in model.named_parameters()), 0)
        except BaseException:
            self.close()
            raise

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, key: int, last: bool) -> Sample:
        """Draws from the request's own seed, that of its conversation and its place in it.

        A request that is sent again thus draws the same tokens. Long attempts, which meet more failures, would else be
        replaced by shorter ones.
        """
        seed = mixed_seed(sampling.seed, key, len(ids))
        request = self._fleet.sample(ids, sampling, seed=seed, key=key, last=last)
        return await asyncio.wrap_future(self._thread.begin(request))

    def waits_for(self) -> str:
        """The number of unanswered requests on each server."""
        loads = {server.url: len(server.requests) for server in self._fleet.servers if server.requests}
        return ", ".join(f"{count} requests on {url}" for url, count in loads.items()) or "no server"

    def release(self, key: int) -> None:
        self._thread.loop.call_soon_threadsafe(self._fleet.router.forget, key)

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Gives weights, or adapters alone, to all servers; returns when at least one of them is up.

        Raises UserError if no server is left, or if the weights cannot be written.
        """
        began = time.perf_counter()
        self._thread.call(self._fleet.steady.acquire())
        all_gather(None, self._ranks)  # all ranks have come to the publication
        label = f"{self._run}:{version}"
        size = self._send(weights, label) if self._direct else self._write(weights, label)
        seconds = time.perf_counter() - began
        self._thread.call(self._release(label))
        if self._keeper:
            self._thread.call(self._fleet.replicas())
        all_gather(None, self._ranks)
        if self._board and not self._keeper:
            self._thread.call(self._fleet.look(self._board))
        self._measure(size, seconds)

    def metrics(self) -> dict[str, float]:
        """Figures of the last publication and of the time since the one before it, over all ranks."""
        return self._metrics

    def close(self) -> None:
        """Ends the servers that were started here, and removes the weights' files."""
        self._thread.call(self._fleet.close())
        self._thread.close()  # it waits for a server that is just being started, which is ended below
        if self._ranks.first:
            if self._processes:
                with ThreadPoolExecutor(len(self._processes)) as pool:
                    list(pool.map(ServerProcess.stop, self._processes.values()))
            self._guard.close()

    def _shared_weights(
        self, model: PreTrainedModel, parent: str, lora: LoraConfig | None
    ) -> tuple[SharedWeights, AdapterFolders | None]:
        """Files in a new folder, which is removed when this process ends."""
        folder = Path(parent) / f"rlcore-{self._run}"
        self._guard.remove(folder)
        try:
            folder.mkdir()
            if lora:
                return SharedWeights(folder, model, files=1), AdapterFolders(folder, lora)
            return SharedWeights(folder, model), None
        except OSError as error:
            raise UserError(f"rollout.vllm.weights_folder {parent} cannot be used: {error.strerror}") from None

    def _write(self, weights: Iterable[tuple[str, torch.Tensor]], label: str) -> int:
        """Publishes through files; returns the bytes."""
        if self._keeper is None:
            for _ in weights:  # gathering a split parameter needs all ranks
                pass
            return all_gather(0, self._ranks)[0]
        whole = adapters = None
        size = 0
        if self._adapters is None or self._fleet.label is None:
            whole, size = Weights(), self._weights.size
        if self._adapters:
            adapters, added = self._adapters.write(weights if whole is None else self._first_adapters)
            size += added
        publication = self._thread.begin(self._keeper.publish(whole, adapters, label))
        if whole is not None:
            try:
                for part in self._weights.write(weights):
                    self._thread.loop.call_soon_threadsafe(whole.add, part)
            except BaseException:
                publication.cancel()  # servers that wait for the rest stay paused
                raise
        publication.result()
        return all_gather(size, self._ranks)[0]

    def _send(self, weights: Iterable[tuple[str, torch.Tensor]], label: str) -> int:
        """Publishes from GPU to GPU; returns the bytes."""
        places = all_gather(self._thread.call(self._keeper.pause_all()) if self._keeper else [], self._ranks)[0]
        size = self._direct.send(weights, places, label)
        if self._keeper:
            self._thread.call(self._keeper.resume_all([url for url, _ in places], label))
        return size

    async def _release(self, label: str) -> None:
        """Ends a publication in this rank's fleet."""
        self._fleet.label = label
        self._fleet.steady.release()
        self._fleet.router.clear()
        self._fleet.tell()

    def _measure(self, size: int, seconds: float) -> None:
        mine = {**self._fleet.counts, "up": sum(server.up for server in self._fleet.servers) / self._ranks.world}
        self._fleet.counts.clear()
        total: Counter[str] = Counter()
        ranks = all_gather(mine, self._ranks)
        for counts in ranks:
            total.update(counts)
        total["taken_out"] = int(ranks[0].get("taken_out", 0))  # the others see the same again
        self._metrics = {
            **{f"servers/{name}": float(total[name]) for name in ("up", "sampled_again", "taken_out", "restarted")},
            **publication_metrics(size, seconds),
        }


def _direct(vllm: schema.VllmConfig, model: PreTrainedModel, rank: int) -> Any:
    if vllm.transfer == "files":
        return None
    if not torch.cuda.is_available():
        raise UserError(f"rollout.vllm.transfer {vllm.transfer} needs GPUs; files needs none")
    from rlcore.rollout.servers.direct import DirectTransfer  # imports vLLM

    return DirectTransfer(vllm.transfer, model, rank, vllm.deadline)


def _processes(
    section: schema.RolloutConfig,
    arguments: dict[str, Any],
    folder: Path,
    guard: Guard,
    lora: LoraConfig | None,
    *,
    on_cpu: bool,
) -> dict[str, ServerProcess]:
    """The servers to start, by URL."""
    vllm, processes = section.vllm, {}
    arguments = arguments | server_arguments(vllm, lora) | vllm.args
    for number in range(section.start_servers):
        port = free_port()
        command = serve_command(vllm.command, port, arguments)
        gpus = vllm.gpus[number] if vllm.gpus else None
        environment = server_environment(gpus, on_cpu=on_cpu, ipc=vllm.transfer == "ipc", lora=bool(lora))
        log = folder / f"server-{number}.log"
        processes[f"http://127.0.0.1:{port}"] = ServerProcess(command, environment, log, guard)
    return processes

"""One vLLM server over HTTP: token ids in, token ids and log-probabilities out, and its routes for weight updates."""

import asyncio
import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from rlcore.errors import UserError
from rlcore.inside_vllm.plugin import ADAPTERS

SIGN_OF_LIFE = 30.0
"""Seconds without an answer to a probe after which a server counts as hung."""
LORA = "adapters"
"""The phase of a publication that changes adapters."""
LORA_OPTIONS = {
    "LoRA is not enabled": "--enable-lora",
    "max_lora_rank": "--max-lora-rank of at least model.lora.rank",
    "no attribute 'load_adapters'": "--worker-extension-cls rlcore.inside_vllm.extension.WorkerExtension",
}
"""The option that a server lacks, by vLLM's message."""


REFUSALS = (400, 401, 403, 413, 422)
"""Status codes by which every server would refuse the request; others may pass, or are a proxy's."""


class ServerFault(Exception):
    """A server failed. The text names the phase, the server and the reason."""


class Aborted(ServerFault):
    """A request was ended by a publication, by the server's end or because it was taken out, not by a failure."""


class Replica:
    """One of a server's data-parallel engines: each has a prefix cache of its own."""

    def __init__(self, server: "Server", rank: int):
        self.server = server
        self.rank = rank
        self.load = 0
        """Unanswered requests."""


class Server:
    """Requests to one server, of at most `deadline` seconds each; failures are raised as `ServerFault`.

    It is `up` while it can be reached and holds weights of this run; else `reason` says why not.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, deadline: float):
        self.url = url.rstrip("/")
        self.up = False
        self.reason = "it has not been reached yet"
        self.label = ""
        """The label of its weights, if they are this run's."""
        self.shunned_until = 0.0
        """The event loop's time until which a rank that only reads the board avoids it."""
        self.replicas = [Replica(self, 0)]
        self.workers = 1
        """Processes that hold (parts of) the weights, over all replicas."""
        self.failures = 0
        """Failed requests in a row."""
        self.trouble = 0
        """Times in a row that it was taken out without having answered a request in between."""
        self.saw_weights = False
        """Whether it has ever taken weights of this run: then it is a vLLM server with the routes it needs."""
        self.read_weights = False
        """Whether it has ever read a part of them."""
        self.answered = False
        """Whether it has ever sampled for this run: then it has the route for that."""
        self.repair_began = 0.0
        """The event loop's time at which its repair began, or the learner's part in it ended."""
        self.failed_repairs = 0
        """Failed repairs in a row."""
        self.doubted = asyncio.Event()
        """Set when a request failed, so that it is probed at once."""
        self.requests: set[asyncio.Task[Any]] = set()
        self._session, self._deadline = session, deadline

    async def generate(
        self,
        ids: Sequence[int],
        settings: dict[str, Any],
        *,
        adapters: str | None,
        salt: str,
        replica: int,
    ) -> dict[str, Any]:
        """One continuation of `ids`: the response's choice, with `token_ids`, `logprobs`, `finish_reason`.

        `settings` are those of `request_settings`. `salt` names the weights, as versions must not share a prefix cache.
        Raises UserError if the server refuses the request.
        """
        request = {
            "token_ids": list(ids),
            "sampling_params": settings,
            "cache_salt": salt,
            "model": adapters,
        }
        headers = {"X-data-parallel-rank": str(replica)} if len(self.replicas) > 1 else None
        answer = await self._call("sampling", "POST", "/inference/v1/generate", request, headers)
        try:
            (choice,) = answer["choices"]
            if choice["finish_reason"] in ("stop", "length"):
                self.answered = True
                return choice
        except (KeyError, TypeError, ValueError):
            raise ServerFault(f"sampling on {self.url}: the answer holds no choice") from None
        raise Aborted(f"sampling on {self.url}: the answer ended with {choice['finish_reason']}")

    async def weight_version(self) -> str:
        """The label of its weights. The engine answers, so this detects a stuck one.

        Raises UserError for a server that has not taken weights before and answers otherwise than vLLM does.
        """
        answer = await self._call("probe", "GET", "/weight_info")
        if "weight_version" not in answer:
            raise self._misfit(f"{self.url} answers, but is no vLLM server")
        return str(answer["weight_version"])

    async def look(self) -> None:
        """Asks for its numbers of workers and data-parallel engines."""
        whole = await self._call("probe", "GET", "/get_world_size")
        one = await self._call("probe", "GET", "/get_world_size?include_dp=false")
        self.workers = int(whole["world_size"])
        self.has_replicas(max(1, self.workers // max(1, int(one["world_size"]))))

    def has_replicas(self, count: int) -> None:
        """Sets the number of its data-parallel engines."""
        if count != len(self.replicas):
            self.replicas = [Replica(self, rank) for rank in range(count)]

    async def pause(self) -> None:
        """Freezes running requests. Their KV cache is computed again under the next weights."""
        await self._call("pause", "POST", "/pause?mode=keep")

    async def start_update(self) -> None:
        await self._call("start of the update", "POST", "/start_weight_update")

    async def update(self, payload: dict[str, Any]) -> None:
        """Updates weights. Raises UserError if the first ones are in a folder that the server does not see."""
        try:
            await self._call("update", "POST", "/update_weights", {"update_info": payload})
        except ServerFault as fault:
            if self.read_weights or "No such file or directory" not in str(fault):
                raise
            raise UserError(
                f"{self.url} does not see the weights in {Path(payload['path']).parents[1]}: set rollout.vllm."
                "weights_folder to a folder that all machines share, or rollout.vllm.transfer to nccl"
            ) from None
        self.read_weights = True

    async def finish_update(self, label: str | None) -> None:
        body = {"weight_version": label} if label is not None else None
        await self._call("end of the update", "POST", "/finish_weight_update", body)

    async def add_adapters(self, folder: str) -> None:
        """Registers adapters after an update of the weights under them, in place of any before."""
        known = await self._call(LORA, "GET", "/v1/models")
        name = {"lora_name": ADAPTERS}
        if any(model["id"] == ADAPTERS for model in known["data"]):
            await self._call(LORA, "POST", "/v1/unload_lora_adapter", name)
        await self._call(LORA, "POST", "/v1/load_lora_adapter", {**name, "lora_path": folder})

    async def change_adapters(self, folder: str, label: str) -> None:
        """Replaces the registered adapters, and labels weights and adapters together."""
        await self._call(LORA, "POST", "/collective_rpc", {"method": "load_adapters", "args": [folder]})
        await self._call(LORA, "POST", "/update_weight_version", {"new_version": label})

    async def resume(self) -> None:
        """Ends a publication: the server has taken the weights."""
        await self._call("resume", "POST", "/resume")
        self.saw_weights = True

    def _misfit(self, text: str) -> Exception:
        """The error for an answer that no suitable server gives; one that was suitable may be behind a proxy."""
        return ServerFault(text) if self.saw_weights else UserError(text)

    async def _call(
        self,
        phase: str,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        where = f"{phase} on {self.url}"
        deadline = min(self._deadline, SIGN_OF_LIFE) if phase == "probe" else self._deadline
        try:
            async with (
                asyncio.timeout(deadline),
                self._session.request(method, self.url + path, json=body, headers=headers) as response,
            ):
                status, text = response.status, await response.text()
                if status < 400:
                    return json.loads(text) if text.startswith("{") else {}
        except TimeoutError:
            raise ServerFault(f"{where}: no answer within {deadline:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.EMFILE:
                raise UserError(f"{where}: too many open files here: raise the hard limit (ulimit -Hn)") from None
            raise ServerFault(f"{where}: {str(error) or type(error).__name__}") from None
        text = " ".join(text.split())[:300]
        if status == 404 and not path.startswith("/inference"):
            variable = "VLLM_ALLOW_RUNTIME_LORA_UPDATING" if "_lora_" in path else "VLLM_SERVER_DEV_MODE"
            raise self._misfit(
                f"{self.url} has no route {path.split('?')[0]}: start vllm serve with {variable}=1 in its "
                "environment, or with launch/serve.sh"
            )
        if option := next((option for said, option in LORA_OPTIONS.items() if phase == LORA and said in text), None):
            raise UserError(
                f"{self.url} does not take the adapters: start vllm serve with {option}, or with launch/serve.sh; or "
                "set rollout.vllm.merge_adapters"
            )
        refused = status in REFUSALS or (status == 404 and not self.answered)
        if refused and phase == "sampling":
            raise UserError(f"{where}: refused with {status}: {text} (was it started as by launch/serve.sh?)")
        raise ServerFault(f"{where}: answered {status}: {text}")

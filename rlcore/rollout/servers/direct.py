"""Weights from GPU to GPU, through vLLM's own transfer back ends: NCCL, or CUDA IPC on GPUs that both sides share.

All ranks of the learner take part, because gathering split parameters needs them all; the first one sends.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlparse

import torch
from torch import nn
from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient, WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightSource,
    WeightTransferUpdatePayload,
)
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from rlcore.errors import UserError, one_line
from rlcore.rollout.servers.processes import free_port

BUFFER_BYTES = 1 << 30
"""Size of the buffers that weights are sent in; they are as large as the largest tensor if that is larger."""

Place = tuple[str, int]
"""A server's URL and its number of GPU workers."""


class LearnerSource(WeightSource):
    """The learner's whole weights. Their names, dtypes and shapes are known before any is gathered."""

    def __init__(self, model: nn.Module, device: torch.device):
        """`model` before ZeRO-3 splits it; its weights are sent from `device`, wherever they lie."""
        self._device = device
        named = model.named_parameters()
        self._metadata = [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in named]
        self.weights: Iterable[tuple[str, torch.Tensor]] = ()

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return max(torch.Size(meta.shape).numel() * meta.dtype.itemsize for meta in self._metadata)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(torch.Size(meta.shape).numel() * meta.dtype.itemsize for meta in self._metadata)

    def metadata(self) -> list[ParamMeta]:
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        # vLLM packs several tensors at a time; a gathered one is let go of when the next is asked for.
        return ((name, tensor.detach().to(self._device, copy=True)) for name, tensor in self.weights)


class ManyServers:
    """vLLM's client of one server for many: each call goes to all at once. Errors name the phase and the server."""

    def __init__(self, places: Sequence[Place], deadline: float):
        self.places = places
        self.phase = "before the update"
        self.label: str | None = None
        self._clients = [HTTPVLLMWeightSyncClient(url, timeout=deadline) for url, _ in places]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Each server's workers get the ranks after those of the servers before it."""
        infos, offset = [], init_info.get("rank_offset", 0)
        for _, workers in self.places:
            infos.append({**init_info, "rank_offset": offset} if "rank_offset" in init_info else init_info)
            offset += workers
        self._all("connection", lambda at: self._clients[at].init_weight_transfer_engine(infos[at]))

    def start_weight_update(self) -> None:
        self._all("start of the update", lambda at: self._clients[at].start_weight_update())

    def update_weights(self, update_info: WeightTransferUpdatePayload) -> None:
        self._all("update", lambda at: self._clients[at].update_weights(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        label = weight_version or self.label
        self._all("end of the update", lambda at: self._clients[at].finish_weight_update(label))

    def disconnect(self) -> None:
        """Closes the servers' end of the connection."""
        self._all("disconnection", lambda at: self._clients[at].shutdown_weight_transfer_engine())

    def _all(self, phase: str, call: Callable[[int], None]) -> None:
        self.phase = phase
        with ThreadPoolExecutor(len(self.places)) as pool:
            calls = [pool.submit(call, at) for at in range(len(self.places))]
        for (url, _), done in zip(self.places, calls, strict=True):
            if error := done.exception():
                raise RuntimeError(f"{phase} on {url}: {error}")


class DirectTransfer:
    """Connects the learner's ranks with the servers and sends weights; connects again if the servers have changed."""

    def __init__(self, backend: Literal["nccl", "ipc"], model: nn.Module, rank: int, deadline: float):
        self._backend = backend
        self._source = LearnerSource(model, torch.device("cuda", torch.cuda.current_device()))
        self._rank = rank
        self._deadline = deadline
        self._engine: TrainerWeightTransferEngine | None = None
        self._client: ManyServers | None = None

    def send(self, weights: Iterable[tuple[str, torch.Tensor]], places: Sequence[Place], label: str) -> int:
        """Sends weights to paused servers, which hold `label` afterwards; returns the bytes.

        Raises UserError, which names the phase and the servers, if it fails or exceeds the deadline. NCCL cannot be
        interrupted, so the run ends; the same command resumes it from its last checkpoint.
        """
        failed: list[BaseException] = []

        def run() -> None:
            try:
                torch.cuda.set_device(device)  # each thread has its own
                self._send(weights, places, label)
            except BaseException as error:
                failed.append(error)

        device = torch.cuda.current_device()
        torch.cuda.synchronize()  # vLLM reads the weights on streams of its own
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self._deadline)
        phase, urls = self._client.phase if self._client else "connection", ", ".join(url for url, _ in places)
        if thread.is_alive():
            raise UserError(f"publication by {self._backend}: {phase} took longer than {self._deadline:g} s ({urls})")
        if failed:
            raise UserError(f"publication by {self._backend}: {one_line(failed[0])}") from failed[0]
        return self._source.size

    def _send(self, weights: Iterable[tuple[str, torch.Tensor]], places: Sequence[Place], label: str) -> None:
        self._source.weights = weights
        if self._engine is None or self._client is None or list(self._client.places) != list(places):
            self._connect(places)
        assert self._engine is not None
        assert self._client is not None
        self._client.label = label
        self._engine.send_weights()

    def _connect(self, places: Sequence[Place]) -> None:
        if self._engine is not None:
            self._engine.shutdown()
        self._client = ManyServers(places, self._deadline)
        if self._rank == 0:
            self._client.disconnect()
        self._engine = WeightTransferTrainerFactory.trainer_init(
            self._init_info(places), client=self._client, source=self._source
        )

    def _init_info(self, places: Sequence[Place]) -> TrainerInitInfo:
        size = max(BUFFER_BYTES, self._source.largest)
        if self._backend == "ipc":
            return IPCTrainerInitInfo(rank=self._rank, packed=True, packed_buffer_size_bytes=size)
        return NCCLTrainerInitInfo(
            master_address=_address_towards(places[0][0]),
            master_port=free_port(),
            world_size=1 + sum(workers for _, workers in places),
            rank=self._rank,
            packed_buffer_size_bytes=size,
        )


def _address_towards(url: str) -> str:
    """This machine's address as a server at `url` sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        parts = urlparse(url)
        probe.connect((parts.hostname, parts.port or 80))  # nothing is sent
        return str(probe.getsockname()[0])

"""The process group of a run: one process or many, CPU or CUDA, started by `torchrun` or not."""

import atexit
import logging
import os
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import numpy as np
import torch

from rlcore.errors import UserError
from rlcore.watchdog import start_watchdog

Item = TypeVar("Item")
LEAVE_DEADLINE = 10.0
"""Seconds that a process which ends waits for the threads of its group."""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Set by `torchrun` in the environment. Other launchers set some of it only: a single process then."""

SAID = "rlcore/said"
"""Stands in the group's store once a process has printed the error that ends all."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process: its number among `world` processes, and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes for all."""
        return self.rank == 0


def present_ranks(device: torch.device) -> Ranks:
    """This process in its group, or alone where there is none."""
    if not torch.distributed.is_initialized():
        return Ranks(0, 1, device)
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)


def all_gather(value: Item, ranks: Ranks) -> list[Item]:
    """The values of all ranks, in their order (every rank takes part)."""
    if ranks.world == 1:
        return [value]
    parts: list[Item] = [value] * ranks.world
    torch.distributed.all_gather_object(parts, value)
    return parts


def start_distributed(device: Literal["auto", "cpu", "cuda"] = "auto", deadline: float = 3600.0) -> Ranks:
    """Join the process group that `torchrun` describes in the environment, or make one of a single process.

    A phase (`watchdog.enter_phase`), or a wait for other ranks, that takes longer than `deadline` seconds ends the
    process. Call it before anything imports DeepSpeed, which settles at import what accelerator it drives. Raises
    UserError as `device_kind` does.
    """
    kind = device_kind(device)
    os.environ["DS_ACCELERATOR"] = kind
    os.environ.setdefault("LOCAL_RANK", "0")
    local = torch.device(kind, int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(local)
    _prepare_deepspeed(kind)
    timeout = timedelta(seconds=deadline + 60)  # the watchdog says more, first
    if torch.distributed.is_initialized():  # several runs may follow each other in one process
        torch.distributed.distributed_c10d._set_pg_timeout(timeout)
    else:
        _join("nccl" if kind == "cuda" else "gloo", timeout)
    ranks = present_ranks(local)
    start_watchdog(ranks.rank, ranks.world, deadline)
    return ranks


def device_kind(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The kind of device that a recipe's `device` means here. Raises UserError for `cuda` without a CUDA device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: PyTorch finds no CUDA device here; device=auto takes the CPU then")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def first_to_say() -> bool:
    """Whether this process is to print an error that stops all: the first one that has any."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return os.environ.get("RANK", "0") == "0"
    return torch.distributed.distributed_c10d._get_default_store().add(SAID, 1) == 1


def has_been_said() -> bool:
    """Whether a process of the group has printed such an error."""
    try:
        return torch.distributed.distributed_c10d._get_default_store().check([SAID])
    except (ValueError, RuntimeError):  # there is no group, or the process that kept the store is gone
        return False


def _prepare_deepspeed(kind: str) -> None:
    import deepspeed  # takes seconds, and reads DS_ACCELERATOR

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if kind == "cpu":
        # Else DeepSpeed compiles its shared-memory all-reduce on first use: minutes, for inference only.
        deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}


def _join(backend: str, timeout: timedelta) -> None:
    import deepspeed

    if not all(name in os.environ for name in TORCHRUN):
        # A store in memory needs no port, and nothing in the environment that child processes would inherit.
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
    deepspeed.init_distributed(backend, timeout=timeout, verbose=False)
    atexit.register(_leave)


def _leave() -> None:
    """Ends the group's threads while there is an interpreter: one that needs it later brings the process down.

    They may themselves wait for ranks that are gone, so they are not waited for without end.
    """
    if not torch.distributed.is_initialized():
        return
    leaving = threading.Thread(target=torch.distributed.destroy_process_group, daemon=True)
    leaving.start()
    leaving.join(LEAVE_DEADLINE)


def gather_rows(rows: dict[str, np.ndarray], ranks: Ranks) -> dict[str, np.ndarray]:
    """Rows `[N]` of every rank joined in the order of ranks; a rank without rows may give an empty dict."""
    parts = [part for part in all_gather(rows, ranks) if part]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def gather_list(items: list[Item], ranks: Ranks) -> list[Item]:
    """The items of every rank joined in the order of ranks."""
    return [item for part in all_gather(items, ranks) for item in part]


def own_first(array: np.ndarray, ranks: Ranks) -> list[np.ndarray]:
    """The arrays of all ranks, this rank's own first."""
    parts = all_gather(array, ranks)
    return [*parts[ranks.rank :], *parts[: ranks.rank]]

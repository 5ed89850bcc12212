"""Free memory of a device."""

import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Bytes that this process can still allocate on `device`; of a host, its share among the ranks on it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min(free, _free_in_container(free)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _free_in_container(free: int) -> int:
    """The free bytes within a container's limit (cgroup v2); all of `free` where there is none."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        # Files that are only cached are given up when memory is wanted.
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else int(limit) - int(used) + int(stat.get("inactive_file", 0))

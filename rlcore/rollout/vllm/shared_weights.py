"""Weights handed over as a file that the other side maps: shared memory on one machine, a shared folder on several.

The trainer writes a whole file, then tells the servers of it: whoever reads it finds all weights of one version, and a
server that comes back later is given the same file. Two files take turns, so that the pages of the one before are used
again, and nobody reads what is being written.
"""

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

ALIGNMENT = 64
"""Bytes: tensors start at multiples of it."""


class SharedWeights:
    """The trainer's side: writes weights into `folder`."""

    def __init__(self, folder: Path):
        self._paths = [folder / "weights-0", folder / "weights-1"]

    def write(self, weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Any]:
        """Writes all of them; returns what `mapped_weights` needs to find them, as plain JSON values."""
        self._paths.reverse()
        names, dtypes, shapes, offsets = [], [], [], []
        end = 0
        file = os.open(self._paths[0], os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for name, tensor in weights:
                start = -(-end // ALIGNMENT) * ALIGNMENT
                end = start + _write_at(file, tensor, start)
                names.append(name)
                dtypes.append(str(tensor.dtype).removeprefix("torch."))
                shapes.append(list(tensor.shape))
                offsets.append(start)
            os.ftruncate(file, end)
        finally:
            os.close(file)
        return {
            "path": str(self._paths[0]),
            "size": end,
            "names": names,
            "dtypes": dtypes,
            "shapes": shapes,
            "offsets": offsets,
        }


def mapped_weights(
    path: str, size: int, names: list[str], dtypes: list[str], shapes: list[list[int]], offsets: list[int]
) -> list[tuple[str, torch.Tensor]]:
    """The tensors of a file, in place: nothing is copied. Raises ValueError for a file that is not as announced."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise ValueError(f"{path} has {os.fstat(file.fileno()).st_size} bytes, not {size}")
        # A private mapping counts as writable, which torch wants; nobody writes to it.
        mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    whole = torch.frombuffer(mapping, dtype=torch.uint8)
    tensors = []
    for name, dtype_name, shape, start in zip(names, dtypes, shapes, offsets, strict=True):
        dtype = getattr(torch, dtype_name)
        length = torch.Size(shape).numel() * dtype.itemsize
        tensors.append((name, whole[start : start + length].view(dtype).view(shape)))
    return tensors


def _write_at(file: int, tensor: torch.Tensor, start: int) -> int:
    """Writes a tensor's bytes; returns their number."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    data = memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
    written = 0
    while written < len(data):  # one call writes at most 2 GiB
        written += os.pwrite(file, data[written:], start + written)
    return written

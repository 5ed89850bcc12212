"""Weights that the trainer wrote to a file, as tensors in place: what the processes of vLLM map."""

import mmap
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch


class MappedFiles:
    """The servers' side. The files of a run stay mapped: mapping pages takes half as long as copying what they hold."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, torch.Tensor]] = {}

    def tensors(
        self, path: str, size: int, names: list[str], dtypes: list[str], shapes: list[list[int]], offsets: list[int]
    ) -> list[tuple[str, torch.Tensor]]:
        """Tensors of a file, in place: nothing is copied. Raises ValueError for a file that is not as announced."""
        whole = self._whole(path, size)
        views = map(partial(view_tensor, whole), dtypes, shapes, offsets)
        return list(zip(names, views, strict=True))

    def _whole(self, path: str, size: int) -> torch.Tensor:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size != size:
                raise ValueError(f"{path} has {found.st_size} bytes, not {size}")
            number, whole = self._files.get(path, (None, None))
            if whole is None or number != found.st_ino:
                if Path(path).parent not in {Path(known).parent for known in self._files}:
                    self._files.clear()  # those of a run that has ended
                # A private mapping counts as writable, which torch wants; nobody writes to it.
                mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
                whole = torch.frombuffer(mapping, dtype=torch.uint8)
                self._files[path] = (found.st_ino, whole)
        return whole


def view_tensor(whole: torch.Tensor, dtype_name: str, shape: Sequence[int], start: int) -> torch.Tensor:
    dtype = getattr(torch, dtype_name)
    length = torch.Size(shape).numel() * dtype.itemsize
    return whole[start : start + length].view(dtype).view(shape)

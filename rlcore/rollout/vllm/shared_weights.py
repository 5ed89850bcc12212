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
from torch import nn

ALIGNMENT = 64
"""Bytes: tensors start at multiples of it."""


class SharedWeights:
    """The trainer's side: files in `folder`, mapped for good, laid out for the parameters of `model`."""

    def __init__(self, folder: Path, model: nn.Module, files: int = 2):
        """`model` before ZeRO-3 splits it; one of the `files` is enough for weights that are written once.

        Raises OSError where the folder cannot hold the files.
        """
        named = dict(model.named_parameters())
        offsets, self.size = [], 0
        for weight in named.values():
            start = -(-self.size // ALIGNMENT) * ALIGNMENT
            offsets.append(start)
            self.size = start + weight.numel() * weight.element_size()
        self._layout: dict[str, Any] = {
            "size": self.size,
            "names": list(named),
            "dtypes": [str(weight.dtype).removeprefix("torch.") for weight in named.values()],
            "shapes": [list(weight.shape) for weight in named.values()],
            "offsets": offsets,
        }
        self._files = []
        for path in (folder / f"weights-{number}" for number in range(files)):
            with path.open("w+b") as file:
                os.posix_fallocate(file.fileno(), 0, self.size)  # else a full disk ends the process at a later write
                mapping = mmap.mmap(file.fileno(), self.size)
            self._files.append((str(path), dict(_views(mapping, **self._layout))))

    def write(self, weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Any]:
        """Writes all of them; returns what `mapped_weights` needs to find them, as plain JSON values.

        Raises ValueError for weights that are not those of the model.
        """
        self._files.reverse()
        path, targets = self._files[0]
        written = set()
        for name, tensor in weights:
            if name not in targets or tensor.shape != targets[name].shape:
                raise ValueError(f"weights {name} {tuple(tensor.shape)} are not among the model's")
            targets[name].copy_(tensor.detach())
            written.add(name)
        if missing := targets.keys() - written:
            raise ValueError(f"{len(missing)} of the model's weights were not published, {min(missing)} among them")
        return {"path": path, **self._layout}


def mapped_weights(path: str, **layout: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors of a file, in place: nothing is copied. Raises ValueError for a file that is not as announced."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found != layout["size"]:
            raise ValueError(f"{path} has {found} bytes, not {layout['size']}")
        # A private mapping counts as writable, which torch wants; nobody writes to it.
        mapping = mmap.mmap(file.fileno(), found, access=mmap.ACCESS_COPY)
    return _views(mapping, **layout)


def _views(
    mapping: mmap.mmap, size: int, names: list[str], dtypes: list[str], shapes: list[list[int]], offsets: list[int]
) -> list[tuple[str, torch.Tensor]]:
    whole = torch.frombuffer(mapping, dtype=torch.uint8, count=size)
    tensors = []
    for name, dtype_name, shape, start in zip(names, dtypes, shapes, offsets, strict=True):
        dtype = getattr(torch, dtype_name)
        length = torch.Size(shape).numel() * dtype.itemsize
        tensors.append((name, whole[start : start + length].view(dtype).view(shape)))
    return tensors

"""Weights in a file that the servers map: in shared memory on one machine, in a shared folder on several.

The trainer writes the file part by part and announces each, so that the servers load one part while it writes the next;
a server that returns later is given the whole file. Two files alternate, so that memory pages are used again and nobody
reads a file that is being written.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlcore.inside_vllm.mapped_files import view_tensor

ALIGNMENT = 64
"""Tensors start at multiples of so many bytes."""
PART_BYTES = 1 << 27
"""Bytes written between two announcements: copying them takes several times as long as a request."""


class SharedWeights:
    """The trainer's side: files in `folder` with the layout of the parameters of `model`, which stay mapped."""

    def __init__(self, folder: Path, model: nn.Module, files: int = 2):
        """`model` must not have been split by ZeRO-3. One of the `files` is enough for weights written only once.

        Raises OSError if the folder cannot hold the files.
        """
        self._places: dict[str, tuple[str, list[int], int]] = {}
        self.size = 0
        for name, weight in model.named_parameters():
            start = -(-self.size // ALIGNMENT) * ALIGNMENT
            self._places[name] = (str(weight.dtype).removeprefix("torch."), list(weight.shape), start)
            self.size = start + weight.nbytes
        self._files = []
        for path in (folder / f"weights-{number}" for number in range(files)):
            with path.open("w+b") as file:
                os.posix_fallocate(file.fileno(), 0, self.size)  # else a full disk ends the process at a later write
                mapping = mmap.mmap(file.fileno(), self.size)
            whole = torch.frombuffer(mapping, dtype=torch.uint8)
            self._files.append(
                (path, mapping, {name: view_tensor(whole, *place) for name, place in self._places.items()})
            )

    def write(
        self, weights: Iterable[tuple[str, torch.Tensor]], part_bytes: int = PART_BYTES
    ) -> Iterator[dict[str, Any]]:
        """Writes all weights; yields each finished part as the JSON values that `MappedFiles` needs.

        A part ends with the tensor that brings it to `part_bytes`. Raises ValueError for weights that are not the
        model's.
        """
        self._files.reverse()
        path, mapping, targets = self._files[0]
        missing = dict.fromkeys(targets)
        part: list[str] = []
        waiting = 0
        for name, weight in weights:
            if name not in missing or weight.shape != targets[name].shape:
                raise ValueError(f"weights {name} {tuple(weight.shape)} are not among the model's")
            del missing[name]
            targets[name].copy_(weight.detach())
            part.append(name)
            waiting += weight.nbytes
            if missing and waiting >= part_bytes:
                mapping.flush()  # to the other machines, where the folder is not in memory
                yield self._describe(path, part, last=False)
                part, waiting = [], 0
        if missing:
            raise ValueError(f"{len(missing)} of the model's weights were not published, {min(missing)} among them")
        mapping.flush()
        yield self._describe(path, part, last=True)

    def _describe(self, path: Path, names: Sequence[str], *, last: bool) -> dict[str, Any]:
        dtypes, shapes, offsets = zip(*(self._places[name] for name in names), strict=True)
        places = {"names": names, "dtypes": dtypes, "shapes": shapes, "offsets": offsets}
        return {"path": str(path), "size": self.size, **places, "last": last}

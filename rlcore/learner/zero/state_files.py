"""The learner's state as files: safetensors that any number of ranks and any ZeRO stage reads back.

Each rank writes the pieces it holds, without communication, as flat tensors named `KIND:START:PARAMETER`; a reader
takes from the files of all ranks the elements that it holds itself.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rlcore.errors import UserError
from rlcore.learner.zero.pieces import WEIGHT, in_buckets, moments, pieces, refresh_weights, replicated
from rlcore.ranks import Ranks

FILE_BYTES = 2 << 30
"""The size of a file: more is not copied off a device at once."""
COUNTERS = "counters.json"


def save_state(engine: Any, model: nn.Module, folder: Path, ranks: Ranks, counters: dict[str, Any]) -> list[Path]:
    """Writes this rank's share of weights and moments, at most `FILE_BYTES` a file; returns the files.

    The first rank writes the `counters`, which all ranks hold alike.
    """
    mine = pieces(engine, model)
    if replicated(engine):
        mine = mine[ranks.rank :: ranks.world]
    tensors = (
        (f"{kind}:{piece.start}:{piece.name}", piece.of(tensor).cpu())
        for piece in mine
        for kind, tensor in {WEIGHT: piece.flat, **moments(engine, piece)}.items()
    )
    written: list[Path] = []
    for bucket in in_buckets(tensors, lambda named: named[1].nbytes, FILE_BYTES):
        written.append(folder / f"rank-{ranks.rank:05d}-{len(written):03d}.safetensors")
        save_file(dict(bucket), written[-1])
    if ranks.first:
        applied = next((state["step"] for state in engine.basic_optimizer.state.values() if "step" in state), 0)
        written.append(folder / COUNTERS)
        written[-1].write_text(json.dumps({**counters, "optimizer_steps": int(applied)}))
    return written


def load_state(engine: Any, model: nn.Module, folder: Path) -> dict[str, Any]:
    """Fills weights and moments of the engine with what `save_state` of all ranks wrote; returns the counters.

    Raises UserError for a gap.
    """
    saved = SavedState(folder)
    optimizer = engine.basic_optimizer
    for piece in pieces(engine, model):
        saved.read(WEIGHT, piece.name, piece.start, piece.of(piece.flat))
        for kind in saved.kinds - {WEIGHT}:
            state = optimizer.state[piece.flat]
            if kind not in state:
                state[kind] = torch.zeros_like(piece.flat.detach())
                device = piece.flat.device if optimizer.defaults.get("fused") else "cpu"
                state["step"] = torch.tensor(0.0, device=device)
            state["step"].fill_(saved.counters["optimizer_steps"])
            saved.read(kind, piece.name, piece.start, piece.of(state[kind]))
    refresh_weights(engine)
    return saved.counters


class SavedState:
    """The state in the files of all ranks. Raises UserError where there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[tuple[str, str], list[tuple[int, int, Any]]] = defaultdict(list)
        for path in sorted(folder.glob("rank-*.safetensors")):
            file = safe_open(path, framework="pt")
            for key in file.keys():  # noqa: SIM118  (not a dict)
                kind, start, name = key.split(":", 2)
                view = file.get_slice(key)
                self._parts[kind, name].append((int(start), int(start) + view.get_shape()[0], view))
        if not self._parts or not (folder / COUNTERS).exists():
            raise UserError(f"checkpoint {folder} holds no learner state")
        self.counters: dict[str, Any] = json.loads((folder / COUNTERS).read_text())
        self.kinds = {kind for kind, _ in self._parts}

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """`(name, float32 values, flat)` of every trained parameter."""
        for kind, name in self._parts:
            if kind == WEIGHT:
                values = torch.empty(max(stop for _, stop, _ in self._parts[kind, name]))
                self.read(kind, name, 0, values)
                yield name, values

    def read(self, kind: str, name: str, start: int, into: Tensor) -> None:
        """Copies elements from `start` on into the flat `into`."""
        stop, found = start + into.numel(), 0
        for first, last, view in self._parts[kind, name]:
            low, high = max(start, first), min(stop, last)
            if low < high:
                into[low - start : high - start].copy_(view[low - first : high - first])
                found += high - low
        if found != into.numel():
            raise UserError(f"checkpoint {self._folder} lacks a part of {kind} {name}")

"""Ends a process that stays in one phase for too long, saying in which, and where the other ranks are.

A rank that waits in a collective for one that died or hangs would else wait for the process group's own timeout, which
names neither the phase nor the rank.
"""

import json
import os
import sys
import threading
import time
import traceback
from datetime import timedelta
from typing import Any

import torch

TICK = 0.5
"""Seconds between looks. Time in which the whole process is suspended does not count."""
EXIT_CODE = 3
_KEY = "rlcore/phase"


class Watchdog(threading.Thread):
    """Watches one process from its first phase on."""

    deadline: float
    """Seconds a phase may take."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._rank, self._world = rank, world
        self._phase, self._spent = "", 0.0
        self._store: Any = None
        if world > 1:
            # A connection of its own: the process group's may be held by the wait that is to be ended.
            default: Any = torch.distributed.distributed_c10d._get_default_store()
            self._store = default.clone()
            self._store.set_timeout(timedelta(seconds=5))

    def enter(self, phase: str) -> None:
        """The process begins something else."""
        self._phase, self._spent = phase, 0.0
        if self._store:
            self._store.set(f"{_KEY}/{self._rank}", json.dumps([phase, time.time()]))
        if phase and not self.is_alive():
            self.start()

    def run(self) -> None:
        while True:
            time.sleep(TICK)
            if self._phase:
                self._spent += TICK
                if self._spent > self.deadline:
                    self._end()

    def _end(self) -> None:
        main = sys._current_frames()[threading.main_thread().ident or 0]
        where = traceback.extract_stack(main)[-1]
        print(
            f"rlcore: rank {self._rank} has been in {self._phase} for {self.deadline:g} s, its deadline "
            f"(learner.deadline), at {where.filename}:{where.lineno} ({where.name}){self._others()}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODE)

    def _others(self) -> str:
        """Where each other rank was last seen."""
        if not self._store:
            return ""
        lines = []
        for rank in set(range(self._world)) - {self._rank}:
            try:
                phase, since = json.loads(self._store.get(f"{_KEY}/{rank}"))
                lines.append(f"rank {rank} in {phase or 'nothing'} for {time.time() - since:.0f} s")
            except (RuntimeError, ValueError):
                lines.append(f"rank {rank} unknown")
        return "; " + ", ".join(lines)


_watchdog: Watchdog | None = None


def start_watchdog(rank: int, world: int, deadline: float) -> None:
    """From here on `enter_phase` counts in this process, which may start it again with another deadline."""
    global _watchdog
    _watchdog = _watchdog or Watchdog(rank, world)
    _watchdog.deadline = deadline


def enter_phase(phase: str) -> None:
    """Says what the process begins now; "" says that nothing has to end any more."""
    if _watchdog:
        _watchdog.enter(phase)

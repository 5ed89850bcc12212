"""vLLM servers that rlcore starts: their command line, their processes, and their end."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcore.errors import UserError
from rlcore.rollout.servers.guard import Guard, kill_group
from rlcore.rollout.vllm.arguments import ENVIRONMENT

RANK_SETTINGS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that `torchrun` sets for the learner's ranks, and a server must not see."""
GRACE = 15.0
"""Seconds that a server has to end after SIGTERM."""


class ServerProcess:
    """One `vllm serve` process and its children, in a process group of their own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, guard: Guard):
        self._command = list(command)
        self._environment = dict(environment)
        self._log = log
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server, after killing what is left of an earlier one. Raises UserError if it cannot be run."""
        self.kill()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise UserError(f"rollout.vllm.command {self._command[0]}: {error.strerror}") from None
        self._guard.watch(self._process.pid)

    def stop(self) -> None:
        """Asks the server to end, and kills what is left after `GRACE` seconds."""
        if self._process is not None and self.alive:
            self._process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + GRACE
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """Kills the whole process group, as a server's engine and workers may outlive it."""
        if self._process is None:
            return
        kill_group(self._process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that the kernel holds
            self._process.wait(timeout=1.0)
        self._guard.forget(self._process.pid)
        self._process = None

    def last_words(self) -> str:
        """How the server ended: the signal, if any, the last error or line in its log, and the log's path."""
        text = self._log.read_bytes()[-20_000:].decode(errors="replace") if self._log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"^(?!.*WARNING).*(\w(Error|Exception)\b|\berror:)", line)]
        code = self._process.poll() if self._process else None
        by = f" by {signal.Signals(-code).name}" if code is not None and code < 0 else ""
        return f"it ended{by}; {(errors or lines or ['it said nothing'])[-1][-300:]} (see {self._log})"


def serve_command(command_line: str, port: int, arguments: Mapping[str, Any], host: str = "127.0.0.1") -> list[str]:
    """The command of a server on this machine: `command_line`, the model, and vLLM's engine arguments as options."""
    # Not the command `vllm`: it may be another environment's, and in the CPU build it does not find its own version.
    ours = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model"]
    options = {key.replace("_", "-"): value for key, value in arguments.items() if value is not None}
    command = [*(command_line.split() or ours), str(options.pop("model")), "--host", host, "--port", str(port)]
    for key, value in options.items():
        if isinstance(value, bool):
            command.append(f"--{key}" if value else f"--no-{key}")
        else:
            command += [f"--{key}", json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return command


def server_environment(gpus: str | None, *, on_cpu: bool, ipc: bool, lora: bool) -> dict[str, str]:
    """The trainer's environment without the variables of its rank, and with vLLM's routes for RL switched on."""
    environment = ENVIRONMENT | {key: value for key, value in os.environ.items() if key not in RANK_SETTINGS}
    environment = {key: value for key, value in environment.items() if not key.startswith("TORCHELASTIC_")}
    environment["VLLM_SERVER_DEV_MODE"] = "1"
    # A server that is late to read what came on an idle connection would drop it after 5 seconds, the requests with it.
    environment.setdefault("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "600")
    if ipc:
        environment["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # handles travel pickled, on this machine
    if lora:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if on_cpu:
        environment["TORCHDYNAMO_DISABLE"] = "1"  # compiling vLLM's few compiled functions takes seconds and a compiler
        environment.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a single worker runs in the engine's process
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    return environment


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

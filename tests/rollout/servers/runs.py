"""Whole runs over stand-in servers, and what they leave behind."""

import json
import socket
import sys
from pathlib import Path

from tests.processes import Started
from tests.rollout.servers.running import STUB
from tests.tiny import write_recipe


def recipe(folder: Path, **vllm: object) -> Path:
    servers = {"start_servers": 2} if "servers" not in vllm else {"servers": vllm.pop("servers")}
    settings = {"weights_folder": str(folder), "command": f"{sys.executable} {STUB}", **vllm}
    return write_recipe(
        folder,
        rollout={"engine": "vllm", "mode": "servers", **servers, "vllm": settings},
        evaluate=None,
        model={"scratch": {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300}},
        rewards={"functions": [{"name": "./my_reward.py:letter_reward"}], "max_failed": 1.0},
    )


def running(folder: Path) -> dict[int, int]:
    """Ports of the stand-ins that a run in `folder` started, by process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(STUB) in words and any(word.startswith(str(folder)) for word in words):
            found[int(path.parent.name)] = int(words[words.index("--port") + 1])
    return found


def records(folder: Path) -> list[dict]:
    path = folder / "run" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def nothing_is_left(folder: Path, ports: list[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return not running(folder) and not list(folder.glob("rlcore-*"))


def train(folder: Path, *overrides: str, processes: int | None = None) -> Started:
    words = ("-m", "rlcore", "train", folder / "recipe.yaml", f"output={folder / 'run'}", *overrides)
    return Started(*words, processes=processes)

"""Whole runs in servers mode over stand-ins: a server is lost, the trainer is killed, two ranks share servers."""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from tests.processes import Started, rlcore, torchrun
from tests.rollout.servers.running import STUB, Stub, post, until
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


def train(folder: Path, *overrides: str) -> Started:
    return Started("-m", "rlcore", "train", folder / "recipe.yaml", f"output={folder / 'run'}", *overrides)


def test_a_run_goes_on_when_a_server_is_killed_and_leaves_nothing_when_it_is_stopped(tmp_path):
    recipe(tmp_path)
    trainer = train(tmp_path, "stages.1.steps=5000")
    until(lambda: records(tmp_path), 600)
    ports = running(tmp_path)
    os.kill(next(iter(ports)), signal.SIGKILL)
    until(lambda: any(record["servers/restarted"] for record in records(tmp_path)), 600)
    trainer.send_signal(signal.SIGTERM)
    said = trainer.wait()
    assert trainer.returncode == 0, said
    steps = records(tmp_path)
    assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
    assert sum(record["servers/taken_out"] for record in steps) == 1
    assert sum(record["servers/restarted"] for record in steps) == 1
    assert all(record["publish/gb_per_s"] > 0 for record in steps)
    assert nothing_is_left(tmp_path, list(ports.values()))


def test_a_trainer_that_is_killed_leaves_no_server_no_file_and_no_port(tmp_path):
    recipe(tmp_path)
    trainer = train(tmp_path, "stages.1.steps=5000")
    until(lambda: records(tmp_path), 600)
    ports = running(tmp_path)
    assert len(ports) == 2
    assert list(tmp_path.glob("rlcore-*/weights-*"))
    trainer.kill()
    trainer.wait()
    until(lambda: nothing_is_left(tmp_path, list(ports.values())))


def test_two_ranks_share_servers_and_publish_split_weights(tmp_path):
    stubs = [Stub(), Stub()]
    try:
        path = recipe(tmp_path, servers=[stub.url for stub in stubs])
        done = torchrun(2, "-m", "rlcore", "train", path, f"output={tmp_path / 'run'}", "learner.zero=3")
        assert done.returncode == 0, done.stderr
        with safe_open(tmp_path / "run" / "final" / "model.safetensors", "pt") as trained:
            first = trained.get_tensor("model.embed_tokens.weight")[0, 0].item()
        answers = [post(stub.url, "/seen") for stub in stubs]
    finally:
        for stub in stubs:
            stub.kill()
    assert [answer["weight"] for answer in answers] == [first, first]
    assert sum(len(answer["seen"]) for answer in answers) == 6 * 4 * 4 * 2  # steps, problems, group, attempts
    assert records(tmp_path)[-1]["servers/up"] == 2


def test_two_ranks_publish_split_adapters_alone(tmp_path):
    stub = Stub()
    try:
        lora = "model.lora={rank: 2}"
        path = recipe(tmp_path, servers=[stub.url])
        done = torchrun(2, "-m", "rlcore", "train", path, f"output={tmp_path / 'run'}", "learner.zero=3", lora)
    finally:
        stub.kill()
    assert done.returncode == 0, done.stderr
    merged = load_file(tmp_path / "run" / "final" / "model.safetensors")
    sides = [sum(weight.shape) for name, weight in merged.items() if name.endswith("proj.weight")]
    assert {record["publish/bytes"] for record in records(tmp_path)} == {2 * sum(sides) * 4}  # rank 2, float32


def ahead(folder: Path, count: int, **settings: object) -> Path:
    """A recipe of servers mode whose steps are sampled `count` updates ahead."""
    path = recipe(folder, **settings)
    values = yaml.safe_load(path.read_text())
    values["batch"]["ahead"] = count
    values["stages"][1]["steps"] = 7
    path.write_text(yaml.safe_dump(values))
    return path


def told(step: dict) -> dict:
    """What a step was trained on and what came of it, without what time it took and how servers did."""
    return {name: value for name, value in step.items() if not name.startswith(("time/", "publish/", "servers/"))}


def test_a_trainer_that_is_killed_again_and_again_trains_every_step_once_from_what_it_had_sampled(tmp_path):
    path = ahead(tmp_path, 2)
    seen: dict[int, dict] = {}
    for _ in range(3):
        had, trainer = len(records(tmp_path)), train(tmp_path)
        until(lambda: len(records(tmp_path)) > max(had, 3) or trainer.poll() is not None, 600)  # noqa: B023
        time.sleep(random.random() / 5)
        trainer.kill()
        trainer.wait()
        for step in records(tmp_path):
            assert told(step) == seen.setdefault(step["step"], told(step)), "a step is trained again as it was"
    assert len(seen) >= 3
    done = rlcore("train", path, f"output={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    steps = records(tmp_path)
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert all(told(step) == seen.get(step["step"], told(step)) for step in steps)
    assert 0 < max(step.get("learner/lag", 0) for step in steps) <= 2
    until(lambda: nothing_is_left(tmp_path, []))


def test_two_ranks_of_split_weights_run_ahead_on_servers_that_only_one_of_them_watches(tmp_path):
    stubs = [Stub(), Stub()]
    try:
        path = ahead(tmp_path, 2, servers=[stub.url for stub in stubs])
        words = (f"output={tmp_path / 'run'}", "learner.zero=3", "model.lora={rank: 2}")
        done = torchrun(2, "-m", "rlcore", "train", path, *words)
        assert done.returncode == 0, done.stderr
        answers = [post(stub.url, "/seen")["seen"] for stub in stubs]
    finally:
        for stub in stubs:
            stub.kill()
    assert sum(map(len, answers)) == 10 * 4 * 4 * 2  # steps, problems, group, attempts
    assert all(answers)
    assert 0 < max(step.get("learner/lag", 0) for step in records(tmp_path)) <= 2
    assert len(list((tmp_path / "run" / "ledger").iterdir())) == 2

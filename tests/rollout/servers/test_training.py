"""Whole runs in servers mode over stand-ins: a server is lost, the trainer is killed, two ranks share servers."""

import os
import signal

from safetensors import safe_open
from safetensors.torch import load_file

from tests.processes import torchrun
from tests.rollout.servers.running import Stub, post, until
from tests.rollout.servers.runs import nothing_is_left, recipe, records, running, train


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

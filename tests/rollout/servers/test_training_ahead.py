"""Whole runs that sample ahead, over stand-ins: trainers, ranks and servers end at any time, and no step is lost."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.processes import alive, rlcore, torchrun
from tests.rollout.servers.running import STUB, Stub, post, until
from tests.rollout.servers.runs import nothing_is_left, recipe, records, running, train

STEPS, REQUESTS = 10, 10 * 4 * 4 * 2
"""Of a run: steps; steps x problems x group x attempts."""


def ahead(folder: Path, **settings: object) -> Path:
    """A recipe of servers mode whose steps are sampled two updates ahead."""
    path = recipe(folder, **settings)
    values = yaml.safe_load(path.read_text())
    values["batch"]["ahead"] = 2
    values["stages"][1]["steps"] = STEPS - 3
    path.write_text(yaml.safe_dump(values))
    return path


def told(step: dict) -> dict:
    """What a step was trained on and what came of it, without what time it took and how servers did."""
    return {name: value for name, value in step.items() if not name.startswith(("time/", "publish/", "servers/"))}


def lengths(folder: Path) -> list[dict]:
    """Of each step the mean lengths of its answers: they follow from its serials and the recipe's seed alone."""
    return [{name: value for name, value in step.items() if "train/tokens_t" in name} for step in records(folder)]


def answered(url: str) -> int:
    """Requests that a server has answered."""
    return len(post(url, "/seen")["seen"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, list[int]]:
    """The folder of a run on two ranks that nothing happens to, and how many requests each server answered."""
    folder, stubs = tmp_path_factory.mktemp("undisturbed"), [Stub(), Stub()]
    try:
        path = ahead(folder, servers=[stub.url for stub in stubs])
        words = (f"output={folder / 'run'}", "learner.zero=3", "model.lora={rank: 2}")
        done = torchrun(2, "-m", "rlcore", "train", path, *words)
        assert done.returncode == 0, done.stderr
        return folder, [answered(stub.url) for stub in stubs]
    finally:
        for stub in stubs:
            stub.kill()


def test_two_ranks_of_split_weights_run_ahead_on_servers_that_only_one_of_them_watches(undisturbed):
    folder, counts = undisturbed
    assert sum(counts) == REQUESTS
    assert all(counts)
    assert 0 < max(step.get("learner/lag", 0) for step in records(folder)) <= 2
    assert len(list((folder / "run" / "ledger").iterdir())) == 2


def test_a_trainer_stopped_by_ctrl_c_and_killed_trains_every_step_once_from_what_it_had_sampled(tmp_path, undisturbed):
    path = ahead(tmp_path)
    trainer = train(tmp_path, f"rollout.vllm.command={sys.executable} {STUB} --holds-after 90")
    until(lambda: records(tmp_path), 600)
    urls = [f"http://127.0.0.1:{port}" for port in running(tmp_path).values()]
    until(lambda: any(answered(url) >= 90 for url in urls))
    started, ports = trainer.family(), list(running(tmp_path).values())
    os.killpg(trainer.pid, signal.SIGINT)
    said = trainer.wait()
    assert trainer.returncode == 0, said
    assert f"stopped after step {len(records(tmp_path))} and saved" in said
    assert "Traceback" not in said
    until(lambda: not alive(started) and nothing_is_left(tmp_path, ports))
    kept = {step["step"]: told(step) for step in records(tmp_path)}
    for _ in range(2):
        had, trainer = len(records(tmp_path)), train(tmp_path)
        until(lambda: len(records(tmp_path)) > max(had, 3) or trainer.poll() is not None, 600)  # noqa: B023
        time.sleep(random.random() / 5)
        trainer.kill()
        trainer.wait()
        for step in records(tmp_path):
            assert told(step) == kept.setdefault(step["step"], told(step)), "a step is trained again as it was"
    done = rlcore("train", path, f"output={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    steps = records(tmp_path)
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    assert all(told(step) == kept.get(step["step"], told(step)) for step in steps)
    assert 0 < max(step.get("learner/lag", 0) for step in steps) <= 2
    assert lengths(tmp_path) == lengths(undisturbed[0])
    until(lambda: nothing_is_left(tmp_path, []))


def hold(stubs: list[Stub], more: int) -> Callable[[], bool]:
    """Makes servers answer so many more requests and no others; the function says whether one of them is there."""
    limits = {stub.url: answered(stub.url) + more for stub in stubs}
    for url, limit in limits.items():
        post(url, "/behave", {"holds_after": limit})
    return lambda: any(answered(url) >= limit for url, limit in limits.items())


def test_two_ranks_of_which_one_is_killed_and_that_are_stopped_then_train_every_step_once(tmp_path, undisturbed, two):
    path, kept = ahead(tmp_path, servers=[stub.url for stub in two]), dict[int, dict]()
    for number in (signal.SIGKILL, signal.SIGTERM):
        held, stopped = hold(two, 60), number == signal.SIGTERM
        trainer = train(tmp_path, processes=2)
        until(held, 600)
        started, ranks = trainer.family(), trainer.ranks()
        for rank in ranks if stopped else random.sample(ranks, 1):  # as torchrun passes a signal on
            os.kill(rank, number)
        said = trainer.wait()
        assert (trainer.returncode == 0, "and saved" in said) == (stopped, stopped), said
        until(lambda: not alive(started) and nothing_is_left(tmp_path, []))  # noqa: B023
        for step in records(tmp_path):
            assert told(step) == kept.setdefault(step["step"], told(step)), "a step is trained again as it was"
    for stub in two:
        post(stub.url, "/behave", {})
    done = torchrun(2, "-m", "rlcore", "train", path, f"output={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert kept
    assert all(told(step) == kept.get(step["step"], told(step)) for step in records(tmp_path))
    assert lengths(tmp_path) == lengths(undisturbed[0])


def test_a_server_killed_with_requests_in_flight_of_two_ranks_costs_no_step(tmp_path, undisturbed, two):
    ahead(tmp_path, servers=[stub.url for stub in two])
    held = hold(two[:1], 60)
    trainer = train(tmp_path, processes=2)
    until(held, 600)
    two[0].kill()
    said = trainer.wait()
    assert trainer.returncode == 0, said
    assert lengths(tmp_path) == lengths(undisturbed[0])
    steps = records(tmp_path)
    assert sum(step["servers/sampled_again"] for step in steps) > 0
    assert steps[-1]["servers/up"] == 1

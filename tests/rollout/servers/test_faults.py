"""Servers mode against stand-ins that die, hang, fail, forget and come back (see stub.py). No vLLM is needed."""

import asyncio
import http.server
import os
import signal
import sys
import threading

import pytest
import torch

from rlcore.errors import UserError
from rlcore.rollout import Sampling
from rlcore.rollout.loop_thread import LoopThread
from rlcore.rollout.servers.board import Board
from rlcore.rollout.servers.fleet import Fleet
from rlcore.rollout.stopping import StopTexts
from tests.rollout.servers.running import STUB, Stub, engine, post, sample_all, until, up, weights

OURS = {"command": f"{sys.executable} {STUB}"}


@pytest.fixture
def hung_soon(monkeypatch):
    """Where a server hangs. Elsewhere a slow machine must not look like one that does."""
    monkeypatch.setattr("rlcore.rollout.servers.server.SIGN_OF_LIFE", 1.0)


def given(stubs, **settings):
    return {"servers": [stub.url for stub in stubs], "deadline": 20.0, **settings}


def logprobs(trajectories):
    return {logprob for samples in trajectories for sample in samples for logprob in sample.logprobs}


def seen(stubs):
    return [post(stub.url, "/seen")["seen"] for stub in stubs]


def test_requests_are_spread_and_a_trajectory_and_its_group_stay_on_one_server(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-0.5), 3)
        until(lambda: up(rollout) == 2)
        trajectories = sample_all(rollout, 16, seed=5)
    assert {version for samples in trajectories for sample in samples for version in sample.versions} == {3}
    first, second = seen(two)
    assert len(first) == len(second) == 16
    groups_of = [{request["ids"][0] for request in requests} for requests in (first, second)]
    assert not groups_of[0] & groups_of[1]  # every group's eight requests went to the same server
    assert {request["salt"].rpartition(":")[2] for request in first + second} == {"3"}


def test_servers_look_for_texts_that_end_a_reply(two, tmp_path):
    async def ask(rollout, stop):
        return await rollout.sample([1, 2], Sampling(8, stop=stop), key=0, last=True)

    with engine(tmp_path, **given(two[:1])) as rollout:
        for stop in (None, StopTexts(["Quest", "\n\n"], str)):
            asyncio.run(ask(rollout, stop))
    assert [request["stop"] for request in seen(two[:1])[0]] == [[], ["Quest", "\n\n"]]


def test_every_answer_is_of_the_published_weights(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        for version in range(3):
            rollout.publish(weights(-float(version)), version)
            until(lambda: up(rollout) == 2)
            assert logprobs(sample_all(rollout, 8)) == {-float(version)}
        assert rollout.metrics()["publish/bytes"] == 64 + 5 * 7 * 4
        assert rollout.metrics()["servers/up"] == 2


def test_the_same_seed_draws_the_same_tokens_wherever_a_request_goes(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-1), 0)
        before = sample_all(rollout, 8, seed=1)
        two[0].kill()
        assert sample_all(rollout, 8, seed=1) == before
        assert sample_all(rollout, 8, seed=2) != before


def test_a_server_killed_in_mid_rollout_loses_nothing_and_rejoins_with_the_current_weights(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        undisturbed = sample_all(rollout, 32, seed=1)
        for stub in two:
            post(stub.url, "/behave", {"delay": 0.6})
        assert sample_all(rollout, 32, then=two[0].kill, seed=1) == undisturbed
        two[0] = Stub(two[0].port)  # somebody starts it again, with weights of its own
        until(lambda: up(rollout) == 2)
        assert logprobs(sample_all(rollout, 32, seed=2)) == {-1.0}
        assert seen(two)[0]
        rollout.publish(weights(-2), 2)
        metrics = rollout.metrics()
    assert metrics["servers/taken_out"] == 1
    assert 1 <= metrics["servers/sampled_again"] <= 32
    assert metrics["servers/restarted"] == 0


def test_a_frozen_server_is_found_out_and_comes_back_when_it_goes_on(two, tmp_path, hung_soon):
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        os.kill(two[1].process.pid, signal.SIGSTOP)
        assert len(sample_all(rollout, 16)) == 16
        rollout.publish(weights(-2), 2)
        os.kill(two[1].process.pid, signal.SIGCONT)
        until(lambda: up(rollout) == 2)
        assert logprobs(sample_all(rollout, 16)) == {-2.0}


def test_a_server_that_answers_500_gets_no_more_requests(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        post(two[0].url, "/behave", {"status": 500})
        assert len(sample_all(rollout, 16)) == 16
        rollout.publish(weights(-2), 2)
        assert rollout.metrics()["servers/taken_out"] >= 1


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "failed 8 times, .*told to fail"), (400, "refused with 400: .*fail")]
)
def test_a_request_that_no_server_answers_ends_the_run_in_one_line(two, tmp_path, status, reason):
    with engine(tmp_path, **given(two)) as rollout:
        for stub in two:
            post(stub.url, "/behave", {"status": status})
        with pytest.raises(UserError, match=reason):
            sample_all(rollout, 1)


def test_an_answer_that_comes_late_is_not_counted_twice(two, tmp_path):
    with engine(tmp_path, **given(two, deadline=0.7)) as rollout:
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        expected = sample_all(rollout, 8, seed=1)
        post(two[0].url, "/behave", {"delay": 1.5})
        assert sample_all(rollout, 8, seed=1) == expected


def test_a_publication_that_fails_halfway_leaves_no_server_on_a_mixture(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        post(two[0].url, "/behave", {"fail": "update"})
        rollout.publish(weights(-2), 2)
        assert logprobs(sample_all(rollout, 16)) == {-2.0}
        until(lambda: up(rollout) == 2)  # the publication was made again
        assert logprobs(sample_all(rollout, 16, seed=1)) == {-2.0}
        assert seen(two)[0]


def test_a_publication_cut_off_by_a_dead_trainer_is_taken_up_by_the_next(two, tmp_path):
    for stub in two:
        post(stub.url, "/pause", {})
        post(stub.url, "/start_weight_update", {})
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-1), 1)
        assert logprobs(sample_all(rollout, 8)) == {-1.0}


def test_the_run_ends_with_every_servers_reason_when_none_is_left(two, tmp_path):
    with engine(tmp_path, **given(two, deadline=1.0)) as rollout:
        rollout.publish(weights(-1), 1)
        for stub in two:
            stub.kill()
        with pytest.raises(UserError, match=r"no rollout server is left: .* on .*; .* on ") as error:
            sample_all(rollout, 4)
    assert all(stub.url in str(error.value) for stub in two)


def test_a_server_without_the_routes_for_training_is_refused_in_one_line(tmp_path):
    plain = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    plain.RequestHandlerClass.do_GET = lambda handler: handler.send_error(404)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{plain.server_port}"
    with pytest.raises(UserError, match="VLLM_SERVER_DEV_MODE=1"), engine(tmp_path, servers=[url]):
        pass
    plain.shutdown()


def test_a_server_of_ours_that_is_killed_is_started_again(tmp_path):
    with engine(tmp_path, start_servers=2, **OURS) as rollout:
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        victim, *_ = rollout._processes.values()
        sample_all(rollout, 16, then=lambda: os.killpg(victim._process.pid, signal.SIGKILL))
        until(lambda: up(rollout) == 2)
        assert logprobs(sample_all(rollout, 16)) == {-1.0}
        rollout.publish(weights(-2), 2)
        assert rollout.metrics()["servers/restarted"] == 1


def test_a_frozen_server_of_ours_is_started_again(tmp_path, hung_soon):
    with engine(tmp_path, start_servers=1, **OURS) as rollout:
        rollout.publish(weights(-1), 1)
        (process,) = rollout._processes.values()
        os.killpg(process._process.pid, signal.SIGSTOP)
        assert logprobs(sample_all(rollout, 4)) == {-1.0}


def test_a_command_that_cannot_start_ends_the_run_at_once_with_its_last_words(tmp_path):
    for command, reason in (
        (f"{sys.executable} -c raise(SystemExit('no(such)flag'))", r"it ended; .*no\(such\)flag.*server-0.log"),
        ("no-such-vllm", "no-such-vllm: No such file"),
    ):
        with pytest.raises(UserError, match=reason), engine(tmp_path, start_servers=1, command=command):
            pass


def test_a_server_that_never_saw_the_folder_of_the_weights_ends_the_run(two, tmp_path):
    post(two[1].url, "/behave", {"root": "/elsewhere"})
    said = (
        f"^{two[1].url} does not see the weights in {tmp_path}: set rollout.vllm.weights_folder to a folder that all "
        "machines share, or rollout.vllm.transfer to nccl$"
    )
    with pytest.raises(UserError, match=said), engine(tmp_path, **given(two)) as rollout:
        until(lambda: rollout._fleet.check())


def test_a_server_that_sees_the_folder_no_more_is_taken_out(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        post(two[0].url, "/behave", {"root": "/elsewhere"})
        rollout.publish(weights(-2), 1)
        assert logprobs(sample_all(rollout, 8)) == {-2.0}
        assert rollout.metrics()["servers/taken_out"] == 1
        post(two[0].url, "/behave", {})
        until(lambda: up(rollout) == 2)


def test_servers_that_refuse_the_weights_end_the_run_soon(two, tmp_path):
    for stub in two:
        post(stub.url, "/behave", {"refuse": "update"})
    with (
        pytest.raises(UserError, match=r"no rollout server is left: update on .*answered 500"),
        engine(tmp_path, **given(two, deadline=60)),
    ):
        pass


def test_a_server_that_dies_before_it_is_first_up_is_started_again_where_another_is_up(tmp_path):
    """The first to start is a whole server; the second ends when told, and is a whole one the next time."""
    script = tmp_path / "start.sh"
    script.write_text(
        f"""cd {tmp_path}
        if mkdir first 2>/dev/null || ! mkdir second 2>/dev/null; then exec {sys.executable} {STUB} "$@"; fi
        until [ -e go ]; do sleep 0.05; done
        kill -9 $$"""
    )
    with engine(tmp_path, start_servers=2, command=f"bash {script}") as rollout:
        (tmp_path / "go").touch()
        until(lambda: rollout._fleet.check() or up(rollout) == 2)
        rollout.publish(weights(-1), 1)
        assert rollout.metrics()["servers/restarted"] == 1


def test_a_server_that_is_being_started_while_the_engine_is_closed_is_ended(tmp_path):
    log = tmp_path / "logs" / "server-1.log"
    log.parent.mkdir()
    os.mkfifo(log)  # until somebody reads it, the server is not started; it is at its end when the server has ended
    reading = threading.Timer(1.0, log.read_bytes)
    reading.daemon = True
    with engine(tmp_path, start_servers=2, **OURS):
        reading.start()
    reading.join(30)
    assert not reading.is_alive()


def test_what_answers_but_is_no_vllm_server_ends_the_run_in_one_line(tmp_path):
    page = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    page.RequestHandlerClass.do_GET = lambda handler: handler.send_error(200, "welcome")
    threading.Thread(target=page.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{page.server_port}"
    with pytest.raises(UserError, match=f"{url} answers, but is no vLLM server"), engine(tmp_path, servers=[url]):
        pass
    page.shutdown()


def test_servers_that_cannot_be_paused_are_named(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        rollout._thread.call(rollout._fleet.steady.acquire())  # as a publication does
        for stub in two:
            stub.kill()
        with pytest.raises(UserError, match=f"pause on {two[0].url}.*; pause on {two[1].url}"):
            rollout._thread.call(rollout._keeper.pause_all())


def test_a_rank_that_only_follows_asks_no_server_how_it_is(two, tmp_path):
    board = Board(torch.distributed.HashStore(), "run")

    async def followed() -> Fleet:
        fleet = Fleet(rollout._fleet.section, rollout._fleet.urls, [1])
        await fleet.open(None, board)
        return fleet

    async def seen(fleet: Fleet) -> list[tuple[bool, str]]:
        await fleet.look(board)
        return [(server.up, server.label.rpartition(":")[2]) for server in fleet.servers]

    with engine(tmp_path, **given(two)) as rollout:
        rollout._fleet._board = board
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        thread = LoopThread("follower")
        fleet = thread.call(followed())
        assert thread.call(seen(fleet)) == [(True, "1")] * 2
        rollout.publish(weights(-2), 2)
        fleet.label = rollout._fleet.label
        thread.call(seen(fleet))
        sampled = thread.call(fleet.sample([3, 4], Sampling(8), seed=1, key=1, last=True))
        assert (set(sampled.versions), set(sampled.logprobs)) == ({2}, {-2.0})
        two[0].kill()
        until(lambda: thread.call(seen(fleet)) == [(False, "2"), (True, "2")])
        sampled = thread.call(fleet.sample([3, 4], Sampling(8), seed=1, key=1, last=True))
        assert set(sampled.logprobs) == {-2.0}
        thread.call(fleet.close())
        thread.close()
        asked = [server.requests for server in fleet.servers]
    assert asked == [set(), set()]


def test_answers_begun_before_a_publication_are_no_fault_of_the_server(two, tmp_path):
    """More of them than the failures that take a server out; each says which weights it is of."""
    with engine(tmp_path, **given(two)) as rollout:
        rollout.publish(weights(-1), 1)
        until(lambda: up(rollout) == 2)
        for stub in two:
            post(stub.url, "/behave", {"delay": 1.0})
        old = Sampling(8, least_version=1)

        async def run() -> list:
            asked = [asyncio.create_task(rollout.sample([at], old, key=at, last=True)) for at in range(12)]
            await asyncio.to_thread(until, lambda: all(server.requests for server in rollout._fleet.servers))
            await asyncio.to_thread(rollout.publish, weights(-2), 2)
            return await asyncio.gather(*asked)

        assert {version for sample in asyncio.run(run()) for version in sample.versions} <= {1, 2}
        assert rollout._fleet.counts["taken_out"] == rollout._fleet.counts["sampled_again"] == 0
        for stub in two:
            post(stub.url, "/behave", {})
        assert logprobs(sample_all(rollout, 8)) == {-2.0}, "what is asked now is answered by the new ones"

"""The generative verifier against a real HTTP server: one that answers, slowly, wrongly, and not at all."""

import http.server
import json
import socket
import threading
import time

import pytest

from rewards import RewardError, RewardPool
from rewards.judge import judge_verdicts, usage


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            number = len(self.server.seen)
        self.answer(body["messages"][0]["content"], number)
        with self.server.lock:
            self.server.at_once -= 1

    def answer(self, question: str, number: int) -> None:
        said = question.split("<proposed>\n")[-1].split("\n</proposed>")[0]
        if said == "slow":
            time.sleep(0.2)
        if said == "trickle":
            self.trickle()
            return
        if said == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if said == "not json":
            self.reply(200, b"<html>")
        elif said == "forbidden":
            self.reply(403, b"no")
        elif said == "busy" or (said == "busy once" and number == 1):
            self.reply(503, b"later")
        else:
            text = {"right": "Yes.", "wrong": "no", "both": "yes or no", "seven": "7"}
            text["alternates"] = "yes" if number % 2 else "no"
            choice = {"message": {"content": text.get(said, "yes")}}
            tops = [{"token": " Yes", "logprob": -0.5}, {"token": "no", "logprob": -1.5}, {"token": "x", "logprob": -3}]
            choice["logprobs"] = {"content": [{"top_logprobs": tops}]}
            usage = {"prompt_tokens": 10, "completion_tokens": 2}
            self.reply(200, json.dumps({"choices": [choice], "usage": usage}).encode())

    def reply(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            for _ in range(1000):
                self.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def ask(server, texts, **settings):
    settings = {"timeout": 20.0, **settings}
    return judge_verdicts(texts, url=server.url, model="m", prompts=["2+2?"] * len(texts), **settings)


def test_yes_and_no(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    verdicts = ask(server, ["right", "wrong", "both"], answer=["4", "4", "4"], key_variable="JUDGE_KEY")
    assert [(v.score, v.status) for v in verdicts] == [(1.0, "correct"), (0.0, "wrong"), (None, "unscorable")]
    assert {request["path"] for request in server.seen} == {"/v1/chat/completions"}
    assert {request["key"] for request in server.seen} == {"Bearer secret"}
    assert all("2+2?" in r["messages"][0]["content"] for r in server.seen)


def test_votes_probability_and_grades(server):
    # of four votes in a row, two are yes
    assert ask(server, ["alternates"], votes=4)[0].score == 0.5
    # e^-0.5 / (e^-0.5 + e^-1.5) = 0.7311
    assert ask(server, ["probably"], method="probability")[0].score == pytest.approx(0.7311, abs=1e-4)
    assert ask(server, ["seven"], method="grade")[0].score == pytest.approx(0.7)
    assert ask(server, ["right"], method="grade")[0].status == "unscorable"


def test_retries_pass_and_refusals_do_not(server):
    assert ask(server, ["busy once"])[0].score == 1.0
    refused = ask(server, ["forbidden"])[0]
    assert (refused.score, refused.status) == (None, "error")
    assert "answered 403" in refused.detail
    assert len(server.seen) == 3


@pytest.mark.parametrize("trouble", ["busy", "drop", "not json", "trickle"])
def test_trouble_ends_at_the_deadline(server, trouble):
    verdict = ask(server, [trouble], timeout=0.6)[0]
    assert (verdict.score, verdict.status) == (None, "timeout")
    assert 0.5 < verdict.seconds < 10


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        verdict = judge_verdicts(["x"], url=url, model="m", timeout=0.5)[0]
    assert verdict.status == "timeout"
    assert "ConnectionRefusedError" in verdict.detail


def test_concurrency_cache_and_counters(server):
    before = (usage.requests, usage.cache_hits, usage.prompt_tokens)
    texts = ["slow"] + [f"slow {n}" for n in range(7)]
    ask(server, ["slow"] * 1, concurrency=4)
    assert ask(server, ["slow"])[0].score == 1.0
    assert (usage.requests - before[0], usage.cache_hits - before[1], usage.prompt_tokens - before[2]) == (1, 1, 10)
    ask(server, texts, concurrency=4)
    assert server.most_at_once <= 4


def test_template_takes_columns_and_keeps_braces(server):
    ask(server, ["{answer} {x}"], template="{rubric}: {completion}", rubric=["be strict"])
    assert server.seen[0]["messages"][0]["content"] == "be strict: {answer} {x}"
    with pytest.raises(RewardError, match="names a column 'topic'"):
        ask(server, ["x"], template="{topic}")


def test_settings_are_checked(server):
    with pytest.raises(RewardError, match="no method 'vote'; known: votes, probability, grade"):
        ask(server, ["x"], method="vote")
    with pytest.raises(RewardError, match="votes is 0"):
        ask(server, ["x"], votes=0)


def test_in_a_pool(server):
    spec = {"name": "judge", "kwargs": {"url": server.url, "model": "m", "timeout": 20.0}}
    with RewardPool([spec]) as pool:
        verdicts = pool.score(["right", "wrong"] * 10, {"answer": ["4"] * 20})
        assert [verdict.score for verdict in verdicts] == [1.0, 0.0] * 10
        counted = pool.counters["judge"]
    assert counted["requests"] == len(server.seen)
    assert counted["requests"] + counted["cache_hits"] == 20
    assert counted["prompt_tokens"] == 10 * counted["requests"]

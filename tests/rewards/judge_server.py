"""An OpenAI-compatible server whose answers, and failures, depend on what it is asked about."""

import http.server
import json
import socket
import threading
import time


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

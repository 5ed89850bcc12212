"""A real HTTP server that speaks as OpenAI's does, and answers from what it is asked and the seed."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Who asked was interrupted."""


class ChatServer:
    """`status` is what it answers next, other than 200, once for each entry; `delay` are seconds a reply takes."""

    def __init__(self, delay: float = 0.0):
        self.delay, self.asked, self.status, self.keys = delay, [], [], set()
        self.models, self.message = ["first-model", "second-model"], True
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def serving(self) -> "Iterator[ChatServer]":
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        yield self
        self._server.shutdown()
        self._server.server_close()

    def reply(self, body: dict) -> tuple[int, dict]:
        with self._lock:
            self.asked.append(body)
            if self.status:
                return self.status.pop(), {"error": {"message": "try\nagain"}}
        time.sleep(self.delay)
        drawn = body["seed"] if body["temperature"] else 0
        digest = hashlib.sha256(json.dumps([body["messages"], drawn]).encode()).digest()
        text = "aeiou"[digest[0] % 5] * (1 + digest[1] % 6)
        finish = "length" if digest[2] % 4 == 0 else "stop"
        message = {"role": "assistant", "content": text} if self.message else None
        choice = {"message": message, "finish_reason": finish}
        return 200, {"choices": [choice], "usage": {"completion_tokens": len(text)}}

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self._send(200, {"data": [{"id": name} for name in server.models]})

            def do_POST(self):
                server.keys.add(self.headers.get("Authorization"))
                self._send(*server.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def _send(self, status, value):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        return Handler

"""A stand-in for `vllm serve` that speaks the same routes: a process that can be killed, frozen, and told to misbehave.

It samples nothing: a request is answered with tokens that follow from its seed, and with the first published weight as
the log-probability of each, so that a test sees which weights answered; what the adapters hold is added to it if the
request names them. `POST /behave` sets how it goes on: `{"status": 500}` fails requests, `{"delay": 1.0}` answers them
late, `{"fail": "update"}` or `"adapters"` fails that part of the next publication, `{"refuse": "update"}` of all,
`{"lacks": "..."}` says so where adapters are loaded, `{"without": "_lora_"}` answers 404 on such routes,
`{"blank": "/weight_info"}` says nothing there, `{"key": "..."}` wants this key with requests,
`{"root": "/elsewhere"}` looks for files there, as on another machine, and `{"holds_after": 9}`, or `--holds-after 9`
from the start, answers so many requests and leaves others waiting until it is told otherwise. `GET /seen` lists the
requests it answered.
"""

import json
import math
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

import numpy as np
from safetensors.numpy import load_file

lock = threading.Condition()
state = {"label": "default", "paused": False, "updating": False, "weight": 0.0, "seen": [], "init": None}
adapters = {"known": False, "loaded": None}  # to the server by name, and in its worker
behaviour: dict[str, object] = {}


class Refused(Exception):
    """Answered with 500."""


class NoRoute(Exception):
    """Answered with 404."""


class NoKey(Exception):
    """Answered with 401."""


def generate(body):
    with lock:
        lock.wait_for(lambda: not state["paused"] and len(state["seen"]) < behaviour.get("holds_after", math.inf))
        label, weight = state["label"], -abs(state["weight"] + (adapters["loaded"] if body["model"] else 0))
    time.sleep(float(behaviour.get("delay", 0)))
    if behaviour.get("status"):
        raise Refused("told to fail")
    settings = body["sampling_params"]
    draw = random.Random(settings["seed"])
    ids = [draw.randrange(100) for _ in range(draw.randrange(1, settings["max_tokens"] + 1))]
    with lock:
        seen = {"ids": body["token_ids"], "salt": body["cache_salt"], "seed": settings["seed"]}
        state["seen"].append(seen | {"stop": settings["stop"] if settings["detokenize"] else []})
    return {
        "choices": [
            {
                "token_ids": ids,
                "logprobs": {"content": [{"token_id": token, "logprob": weight} for token in ids]},
                "finish_reason": "stop",
                "weight_versions": [{"version": label, "start": 0, "end": len(ids)}],
            }
        ]
    }


def start_update():
    if state["updating"]:
        raise Refused("start_weight_update called while a weight update is already active")
    state["updating"] = True


def update(body):
    if behaviour.get("refuse") == "update" or behaviour.pop("fail", None) == "update":
        state["updating"] = False
        raise Refused("told to fail")
    info = body["update_info"]
    try:
        file = np.memmap(behaviour.get("root", "") + info["path"], "f4", "r", info["offsets"][0], (1,))
    except FileNotFoundError as error:
        state["updating"] = False
        raise Refused(f"Worker failed with error '{error}'") from None  # as vLLM says it
    (state["weight"],) = file.tolist()


def finish_update(body):
    if not state["updating"]:
        raise Refused("finish_weight_update called without a matching start_weight_update")
    state["updating"] = False
    adapters["loaded"] = None  # as vLLM does
    if body:
        state["label"] = body["weight_version"]


def load_adapters(folder):
    if "lacks" in behaviour or behaviour.pop("fail", None) == "adapters":
        raise Refused(behaviour.get("lacks", "told to fail"))
    adapters["loaded"] = {
        float(tensor.mean()) for tensor in load_file(f"{folder}/adapter_model.safetensors").values()
    }.pop()


def adapter_route(path, body):
    if path == "/v1/models":
        return {"data": [{"id": name} for name in ("base", "policy")[: 1 + adapters["known"]]]}
    if path == "/v1/unload_lora_adapter":
        adapters["known"] = False
    elif path == "/v1/load_lora_adapter":
        if adapters["known"]:
            raise Refused("the adapter has already been loaded")
        load_adapters(body["lora_path"])
        adapters["known"] = True
        return "Success: it is loaded"
    elif path == "/collective_rpc":
        if adapters["loaded"] is None:
            raise Refused("there are no adapters to replace")
        (folder,) = body["args"]
        load_adapters(folder)
    elif path == "/update_weight_version":
        state["label"] = body["new_version"]
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        try:
            status, answer = 200, self.route(urlparse(self.path).path, body) or {}
        except Refused as refused:
            status, answer = behaviour.get("status", 500), {"error": str(refused)}
        except NoRoute:
            status, answer = 404, {"detail": "Not Found"}
        except NoKey:
            status, answer = 401, {"error": "Unauthorized"}
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def route(self, path, body):
        if "without" in behaviour and behaviour["without"] in path:
            raise NoRoute
        if "blank" in behaviour and behaviour["blank"] in path:
            return None
        if "key" in behaviour and path != "/behave" and self.headers["Authorization"] != f"Bearer {behaviour['key']}":
            raise NoKey
        if path == "/inference/v1/generate":
            return generate(body)
        with lock:
            if path == "/weight_info":
                return {"weight_version": state["label"]}
            if path == "/get_world_size":
                return {"world_size": 1}
            if path in ("/pause", "/resume"):
                state["paused"] = path == "/pause"
                lock.notify_all()
            elif path == "/init_weight_transfer_engine":
                state["init"] = body["init_info"]
            elif path == "/start_weight_update":
                start_update()
            elif path == "/update_weights":
                update(body)
            elif path == "/finish_weight_update":
                finish_update(body)
            elif path == "/behave":
                behaviour.clear()
                behaviour.update(body)
                lock.notify_all()
            elif path == "/seen":
                return {"seen": state["seen"], "weight": state["weight"], "init": state["init"]}
            else:
                return adapter_route(path, body)
            return None

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    if "--holds-after" in sys.argv:
        behaviour["holds_after"] = int(sys.argv[sys.argv.index("--holds-after") + 1])
    ThreadingHTTPServer.request_queue_size = 512
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()

"""What is left when a server's process group is killed, or an engine cannot be made."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import Qwen2Config

from rlcore.errors import UserError
from rlcore.rollout.servers.guard import kill_group
from tests.rollout.servers.running import Pretended, engine

HOLDS_MEMORY = """
import os, time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
segment = SharedMemory(create=True, size=4096)
def command(pid):
    return open(f"/proc/{pid}/cmdline").read()
while command(resource_tracker._resource_tracker._pid) in ("", command("self")):
    time.sleep(0.01)  # until it runs its own program, it cannot be told from other processes
if os.fork() == 0:
    time.sleep(600)
print(segment.name, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("frozen", [False, True])
def test_a_killed_group_leaves_no_process_and_no_shared_memory(frozen):
    server = subprocess.Popen([sys.executable, "-c", HOLDS_MEMORY], stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdout is not None
    segment = Path("/dev/shm", server.stdout.readline().decode().strip())
    assert segment.exists()
    if frozen:
        os.killpg(server.pid, signal.SIGSTOP)
    kill_group(server.pid)
    assert server.wait(timeout=30) == -9
    deadline = time.monotonic() + 30
    while segment.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not segment.exists()
    assert server.stdout.read() == b"", "the pipe ends when the last process that holds it has ended"


class Odd(Pretended):
    """A model whose heads vLLM has no attention for."""

    config = Qwen2Config(hidden_size=40, num_attention_heads=2)


def test_an_engine_that_cannot_be_made_leaves_no_file_and_no_guard(tmp_path):
    def guards() -> int:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return sum(b"guard.py" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)

    before = guards()
    with pytest.raises(UserError) as kept, engine(tmp_path, Odd(), servers=["http://127.0.0.1:9"]):
        pass
    assert kept.value
    assert (list(tmp_path.iterdir()), guards()) == ([], before)

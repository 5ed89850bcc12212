import signal

import pytest

from tests.rollout.servers.running import Stub, post


@pytest.fixture
def two():
    """Stand-ins for two servers that were started by hand."""
    stubs = [Stub(), Stub()]
    for stub in stubs:
        post(stub.url, "/weight_info")  # it listens
    yield stubs
    for stub in stubs:
        stub.process.send_signal(signal.SIGCONT)
        stub.kill()

import pytest

from rlcore.ranks import start_distributed


@pytest.fixture(scope="session")
def ranks():
    """The process group of one CPU process, which every learner needs."""
    return start_distributed("cpu")

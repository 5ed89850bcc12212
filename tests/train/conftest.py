import pytest

from tests.processes import rlcore
from tests.tiny import write_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a run that was never interrupted; its recipe stands beside it."""
    folder = tmp_path_factory.mktemp("finished")
    done = rlcore("train", write_recipe(folder), f"output={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder / "run"

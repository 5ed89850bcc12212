"""What tests of several rooms share."""

import os

# Tiny models gain nothing from a second thread, and lose much where processes share the cores. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else to ask for CUDA spoils it for forked processes
os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it in every process; the process group lasts a whole session

from pathlib import Path
from typing import Any

import pytest

LONGEST = (
    "learner/test_many_ranks.py",
    "rollout/servers/test_real_servers.py",
    "rollout/servers/test_training.py",
    "rollout/servers/test_training_ahead.py",
    "rollout/vllm/test_vllm_training.py",
    "rollout/vllm/test_vllm_tensor_parallel.py",
    "rollout/vllm/test_vllm_in_process.py",
    "real_models/test_sampling.py",
    "real_models/test_learning.py",
    "train/test_resume.py",
    "sft/test_corrections.py",
    "launch/test_launch.py",
    "rewards/test_code.py",
    "fuzz/test_what_is_run.py",
    "fuzz/test_what_is_read.py",
)
"""Files that take longest come first, so that no worker is left alone with one at the end."""
TOGETHER = ("tests/rollout/vllm", "tests/real_models")
"""Folders whose tests go to one worker, which imports vLLM and makes the real model; else each file goes to one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    place = {here / name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER[0] if nodeid.startswith(TOGETHER) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="module", autouse=True)
def environment():
    """Libraries leave marks in the environment, which processes that later tests start would take for their own."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of real benchmark files; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("RLCORE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no benchmark files at {folder}; RLCORE_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests stand in."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def ranks():
    """The process group of one CPU process, which every learner needs."""
    from rlcore.ranks import start_distributed  # takes seconds

    return start_distributed("cpu")

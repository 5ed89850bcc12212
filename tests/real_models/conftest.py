"""Real instruct models: of folders that RLCORE_MODELS names, or SmolLM2 made from its package; else skipped."""

import os
import subprocess
from pathlib import Path

import pytest
import smollm2 as smollm2_package
import torch
from filelock import FileLock
from talks import sampled, talk_of
from transformers import AutoModelForCausalLM, AutoTokenizer


def given_folder(name: str) -> Path:
    """The model's folder inside that which RLCORE_MODELS names; without one the test is skipped."""
    folder = Path(os.environ.get("RLCORE_MODELS", ""), name)
    if "RLCORE_MODELS" not in os.environ or not (folder / "config.json").is_file():
        pytest.skip(f"RLCORE_MODELS names no folder with {name}")
    return folder


@pytest.fixture(scope="session")
def smollm2(pytestconfig) -> Path:
    """SmolLM2-135M-Instruct (Llama's architecture), kept between runs in pytest's cache."""
    if "RLCORE_MODELS" in os.environ:
        return given_folder("smollm2-135m")
    folder = pytestconfig.cache.mkdir("models") / "smollm2-135m"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            try:
                smollm2_package.make(folder)
            except subprocess.CalledProcessError:
                pytest.skip(f"{smollm2_package.PACKAGE} cannot be downloaded")
    return folder


@pytest.fixture(scope="session")
def qwen_coder() -> Path:
    """Qwen2.5-Coder-0.5B-Instruct."""
    return given_folder("qwen2.5-coder-0.5b")


@pytest.fixture(scope="session")
def tokenizer(smollm2):
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="session")
def model(smollm2):
    """SmolLM2 as transformers has it, in float32; whoever changes it takes a copy."""
    return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def trajectories(model, tokenizer):
    """Drawn by the embedded engine, of two attempts each."""
    return sampled(model, talk_of(tokenizer), temperature=1.0)

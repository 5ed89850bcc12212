"""Folders of real instruct models: made where their weights can be had, else what asks for them is skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MAKER = Path(__file__).resolve().parents[3] / "shared" / "models" / "make_model.py"
DEADLINE = 900
"""Seconds."""


def given_folder(name: str) -> Path | None:
    """The model's folder inside that which RLCORE_MODELS names."""
    folder = Path(os.environ.get("RLCORE_MODELS", ""), name)
    return folder if "RLCORE_MODELS" in os.environ and (folder / "config.json").is_file() else None


@pytest.fixture(scope="session")
def smollm2(pytestconfig) -> Path:
    """SmolLM2-135M-Instruct (Llama's architecture), kept in pytest's cache once it is made."""
    name = "smollm2-135m"
    folder = given_folder(name) or Path(pytestconfig.cache.mkdir("models")) / name
    if not folder.exists():
        if not MAKER.is_file():
            pytest.skip(f"RLCORE_MODELS names no folder with {name}, and there is no {MAKER} to make it")
        partial = folder.with_name(f"{name}-{os.getpid()}")
        done = subprocess.run([sys.executable, MAKER, name, partial], capture_output=True, text=True, timeout=DEADLINE)
        if done.returncode:
            pytest.skip(f"{name} cannot be made: {(done.stderr.strip().splitlines() or ['it ended'])[-1]}")
        partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def qwen_coder() -> Path:
    """Qwen2.5-Coder-0.5B-Instruct, too large to be fetched for a test."""
    folder = given_folder("qwen2.5-coder-0.5b")
    if folder is None:
        pytest.skip("RLCORE_MODELS names no folder with qwen2.5-coder-0.5b")
    return folder


@pytest.fixture(scope="session")
def tokenizer(smollm2):
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture
def model(smollm2):
    """SmolLM2 as transformers has it, in float32."""
    return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()

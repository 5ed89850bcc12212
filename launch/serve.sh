#!/usr/bin/env bash
# Starts the vLLM server of a recipe on this machine's GPUs, for learners that run elsewhere.
# usage: launch/serve.sh RECIPE [key=value ...]     PORT=8000 may be set; rollout.vllm.args has further options of vLLM
# vLLM and rlcore must be installed together: vLLM takes new weights through rlcore's plugin.
set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: launch/serve.sh RECIPE [key=value ...]" >&2
    exit 2
fi
exec python -m rlcore.rollout.servers.serve "$@"

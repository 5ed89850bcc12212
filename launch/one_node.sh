#!/usr/bin/env bash
# Trains a recipe on all GPUs of this machine, or on one process where there is none.
# usage: launch/one_node.sh RECIPE [key=value ...]     GPUS=4 launch/one_node.sh ... takes fewer
set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: launch/one_node.sh RECIPE [key=value ...]" >&2
    exit 2
fi
gpus=${GPUS:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300} # seconds to save after SIGTERM; torchrun gives 30
exec torchrun --standalone --nproc-per-node "$gpus" -m rlcore train "$@"

#!/usr/bin/env bash
# Starts the vLLM server of a recipe on this machine's GPUs, for learners that run elsewhere.
# usage: launch/serve.sh RECIPE [key=value ...]     PORT=8000 and VLLM_ARGS="--more options" may be set
# vLLM and rlcore must be installed together: vLLM takes new weights through rlcore's plugin.
set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: launch/serve.sh RECIPE [key=value ...]" >&2
    exit 2
fi
settings=$(python - "$@" <<'PYTHON'
import sys

from rlcore.recipe import load_recipe
from rlcore.types import UserError

try:
    recipe = load_recipe(sys.argv[1], sys.argv[2:])
except UserError as error:
    sys.exit(f"launch/serve.sh: {error}")
if not recipe.model.path:
    sys.exit("launch/serve.sh: the recipe has no model.path")
talk, vllm = recipe.conversation, recipe.rollout.vllm
# Room for the messages between the attempts too.
longest = talk.max_prompt_tokens + talk.replies * (talk.max_attempt_tokens + 512)
backend = "rlcore" if vllm.transfer == "files" else vllm.transfer
print(recipe.model.path, vllm.tensor_parallel, vllm.data_parallel, vllm.gpu_memory_utilization, end=" ")
print(recipe.rollout.slots, longest, backend)
PYTHON
)
read -r model tensor_parallel data_parallel memory slots longest backend <<<"$settings"
export VLLM_SERVER_DEV_MODE=1 # the routes by which learners pause a server and give it new weights
# shellcheck disable=SC2086  # VLLM_ARGS is several words
exec vllm serve "$model" --host 0.0.0.0 --port "${PORT:-8000}" --tensor-parallel-size "$tensor_parallel" \
    --data-parallel-size "$data_parallel" --gpu-memory-utilization "$memory" \
    --max-num-seqs "$slots" --max-model-len "$longest" \
    --generation-config vllm --logprobs-mode processed_logprobs --enable-prefix-caching --skip-tokenizer-init \
    --enable-scale-out --weight-transfer-config "{\"backend\": \"$backend\"}" ${VLLM_ARGS:-}

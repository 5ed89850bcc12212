#!/usr/bin/env bash
# The main job: trains plain multi-turn GRPO and SCoRe from the same small model, evaluates both and the base on held-out
# problems, prints the table and where the report is. Under ten minutes on two CPU cores; uses a GPU if there is one.
# usage: launch/quickstart.sh [key=value ...]     e.g. launch/quickstart.sh learner.lr=1e-3
. "$(dirname "$0")/setup.sh" "" # without an argument it would see the settings
if [ $# -gt 0 ]; then set -- --set "$@"; fi
exec rlcore paper-table recipes/quickstart "$@"

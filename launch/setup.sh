# Sourced by the other scripts: goes to the clone, makes or re-uses its .venv, installs rlcore with the given extras.
# usage: . launch/setup.sh [EXTRAS]     e.g. . launch/setup.sh dev
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:+[$1]}"
if [ ! -x .venv/bin/python ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "rlcore needs Python 3.11 or newer; set PYTHON to one" >&2
        exit 2
    }
    echo "making .venv"
    "${PYTHON:-python3}" -m venv .venv
fi
# Installed anew only when the requirements or the extras have changed.
wanted="$(cksum pyproject.toml) $extras"
if [ "$(cat .venv/installed 2>/dev/null || true)" != "$wanted" ]; then
    echo "installing rlcore$extras into .venv (some minutes the first time)"
    .venv/bin/python -m pip install --quiet --editable ".$extras"
    echo "$wanted" >.venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"

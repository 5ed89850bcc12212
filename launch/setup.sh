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
export PATH="$PWD/.venv/bin:$PATH"
# uv installs several times as fast as pip. It is told of the indexes, wheels and constraints that pip is set up with, and
# to compile what it installs, as pip does: else every process would, where Python is not to write bytecode.
fast_install() {
    python -m pip install --quiet uv
    python - >.venv/uv-settings <<'PYTHON'
import ast
import shlex
import subprocess
import sys

NAMES = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}
NAMES |= {"constraint": "UV_CONSTRAINT", "cert": "SSL_CERT_FILE"}
config = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
for line in config.stdout.splitlines():
    key, _, value = line.partition("=")
    if name := NAMES.get(key.rpartition(".")[2]):
        several = ("," if name == "UV_FIND_LINKS" else " ").join(ast.literal_eval(value).split())
        print(f"export {name}={shlex.quote(several)}")
PYTHON
    (
        . .venv/uv-settings
        export UV_INDEX_STRATEGY=unsafe-best-match UV_COMPILE_BYTECODE=1
        uv pip install --quiet --python .venv/bin/python "$@"
    ) ||
        python -m pip install --quiet "$@"  # what uv makes of a setup of pip's need not be all of it
}
# Installed anew only when the requirements or the extras have changed.
wanted="$(cksum pyproject.toml) $extras"
if [ "$(cat .venv/installed 2>/dev/null || true)" != "$wanted" ]; then
    echo "installing rlcore$extras into .venv (some minutes the first time)"
    fast_install --editable ".$extras"
    echo "$wanted" >.venv/installed
fi

"""The sandbox as an ordinary user: tests are often run by root, training seldom."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
SCRIPT = """
import os, sys
from rewards import RewardError
from rewards.code import Judge
from tests.rewards.programs import HONEST, HOSTILE, INNOCENT

assert os.getuid() == os.geteuid() != 0
try:
    judge = Judge(memory_mb=128, tier=sys.argv[1] or None)
except RewardError as error:
    print("none:", error)
    sys.exit()
tests = {"test_list": ["assert f(2) == 4", "assert f(3) == 9", "assert f(5) == 25"]}
def score(program): return judge.judge(program, tests, timeout=100.0).score
wrong = [name for name, program in HOSTILE.items() if score(program) != 0]
wrong += [name for name, program in {"honest": HONEST, **INNOCENT}.items() if score(program) != 1]
judge.close()
print(judge.programs.tier, wrong)
"""


def as_nobody(tier: str) -> str:
    """Runs the hostile and the innocent programs as a user without rights; its tier, and what was judged wrongly."""
    if os.getuid() != 0:
        pytest.skip("takes root to become another user; the other tests of the sandbox run as this one")
    pythons = [sys.executable, "/usr/bin/python3"]
    become = [shutil.which("setpriv") or "setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    # A sandbox starts the interpreter anew, which must be a file that this user may run.
    enough = (
        "import subprocess, sys; sys.exit(sys.version_info < (3, 11) or subprocess.call([sys.executable, '-c', '']))"
    )
    for python in pythons:
        if subprocess.run([*become, python, "-c", enough], cwd=ROOT, capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no Python 3.11 here that another user may run")
    command = [*become, python, "-c", SCRIPT, tier]
    # That interpreter is not the environment's: it finds what the judge needs, which is pure Python, by path.
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_tier_that_an_ordinary_user_gets_holds():
    assert as_nobody("") in [f"{tier} []" for tier in ("namespaces", "bubblewrap", "landlock")]


@pytest.mark.parametrize("tier", ["bubblewrap", "landlock"])
def test_each_weaker_tier_holds_where_the_machine_has_it(tier):
    found = as_nobody(tier)
    if found.startswith("none:"):
        pytest.skip(found)
    assert found == f"{tier} []"

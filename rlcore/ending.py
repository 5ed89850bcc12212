"""How a command that a mistake ends says so: in one line, once for all ranks, as the last line that a user sees."""

import os
import subprocess
import sys

from rlcore.errors import UserError

SAY_BELOW = """
import select, sys
agent, line, longest = int(sys.argv[1]), sys.argv[2], 600
if select.select([agent], [], [], longest)[0]:
    print(line, file=sys.stderr)
"""


def say_why(error: UserError) -> None:
    """Prints the error, unless another rank has printed its own, and once more below what `torchrun` then writes.

    All ranks make a mistake of the recipe; some errors happen on one rank, which need not be the first.
    """
    ranks = sys.modules.get("rlcore.ranks")  # which takes seconds to import
    if not (ranks.first_to_say() if ranks else os.environ.get("RANK", "0") == "0"):
        return
    line = f"rlcore: {error}"
    print(line, file=sys.stderr, flush=True)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _say_below_torchrun(line)


def said_elsewhere() -> bool:
    """Whether another rank has said why all of them end: what this one met then is only that the other left."""
    ranks = sys.modules.get("rlcore.ranks")
    return ranks is not None and ranks.has_been_said()


def _say_below_torchrun(line: str) -> None:
    """When a rank fails, `torchrun` ends in some 30 lines of its own: a process that outlives it prints below them."""
    try:
        agent = os.pidfd_open(os.getppid())
    except OSError:  # it is gone, or the kernel has no such thing
        return
    command = [sys.executable, "-S", "-c", SAY_BELOW, str(agent), line]
    subprocess.Popen(
        command, pass_fds=[agent], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )

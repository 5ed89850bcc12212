"""The last line of a command that a user's mistake ends: printed once for all ranks, below everything else."""

import os
import select
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
    """Prints the error unless another rank has printed one, and repeats it below what `torchrun` writes afterwards.

    A mistake in the recipe occurs on all ranks; other errors occur on one rank, not always the first.
    """
    ranks = sys.modules.get("rlcore.ranks")  # which takes seconds to import
    if not (ranks.first_to_say() if ranks else os.environ.get("RANK", "0") == "0"):
        return
    line = f"rlcore: {error}"
    print(line, file=sys.stderr, flush=True)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _say_below_torchrun(line)


def said_elsewhere() -> bool:
    """Whether another rank has printed why all ranks end; this rank's own error is then only a consequence."""
    ranks = sys.modules.get("rlcore.ranks")
    return ranks is not None and ranks.has_been_said()


def reader_is_gone() -> bool:
    """Whether what read this command's output has closed it, as `| head` does."""
    output = select.poll()
    output.register(sys.stdout, 0)
    return any(events & select.POLLERR for _, events in output.poll(0))


def drop_output() -> None:
    """Lets what is still to be printed vanish, which Python would otherwise complain of at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_below_torchrun(line: str) -> None:
    """Starts a process that outlives `torchrun`, whose own report of a failed rank takes some 30 lines."""
    try:
        agent = os.pidfd_open(os.getppid())
    except OSError:  # it is gone, or the kernel has no such thing
        return
    command = [sys.executable, "-S", "-c", SAY_BELOW, str(agent), line]
    subprocess.Popen(
        command, pass_fds=[agent], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )

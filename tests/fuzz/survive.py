"""Whatever a user gives, the answer is a result or one line: anything else, a hang too, fails the case that did it."""

import contextlib
import gc
import io
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from rlcore.cli import main
from rlcore.errors import UserError

HANGS = 120
"""Seconds after which a case hangs."""


class Hang(BaseException):
    """No end within `HANGS` seconds; nothing on the way may take it for a failure of its own."""


class NotOneLine(Exception):
    """A command ended with another code than 2, or said other things than one line."""


def survive(cases: int, case: Callable[[Random], object]) -> None:
    """Runs `case` with `cases` random generators, seeded 0, 1, ...; all failures are told together, by their seeds."""
    failed = []
    for seed in range(cases):
        try:
            with _deadline(), pytest.MonkeyPatch.context() as patched:
                patched.setenv("WANDB_MODE", "offline")
                patched.setenv("HF_HUB_OFFLINE", "1")
                case(Random(seed))
        except UserError as error:
            if len(str(error).splitlines()) != 1:
                failed.append(f"seed {seed}: not one line: {error!r}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-5:]]
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            notes = " ".join(getattr(error, "__notes__", ()))
            failed.append(f"seed {seed}: {told} at {' > '.join(where)} {notes}")
    assert not failed, f"{len(failed)} of {cases} cases:\n" + "\n".join(failed)


@contextlib.contextmanager
def noted(what: str) -> Iterator[None]:
    """Adds to what goes wrong how the case was made."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"[{what}]")
        raise


def command(*arguments: object) -> None:
    """A command in this process, silenced; its one-line refusal with code 2 is as good an end as any."""
    said = io.StringIO()
    gc.freeze()  # a session collects garbage as it begins, and need not look through all that tests have imported
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        lines = [line for line in said.getvalue().splitlines() if line.startswith("rlcore: ")]
        if stopped.code != 2 or lines != said.getvalue().splitlines()[-1:]:
            raise NotOneLine(f"code {stopped.code}: {said.getvalue()[-300:]}") from None


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang(f"no end within {HANGS} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)

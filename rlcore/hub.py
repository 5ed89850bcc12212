"""The Hugging Face hub: whether it answers is asked once, so that nothing waits long for one that does not."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from rlcore.errors import UserError

DEADLINE = 5.0
"""Seconds that the hub has to answer."""


@cache
def hub_trouble() -> str:
    """Why the hub does not answer; empty where it does, and where HF_HUB_OFFLINE says not to ask it."""
    if constants.is_offline_mode():
        return ""
    try:
        get_session().head(constants.ENDPOINT, timeout=DEADLINE)
    except Exception as error:  # of the HTTP library that huggingface_hub happens to use
        return str(error) or type(error).__name__
    return ""


@contextmanager
def hub_or_cache(name: str) -> Iterator[None]:
    """Around what loads `name` from a folder, the hub or the hub's cache.

    Where the hub does not answer, this process and those that it starts read the cache alone from then on. That is said
    once. Raises UserError where `name` is not there either.
    """
    trouble = "" if Path(name).exists() else hub_trouble()
    if trouble:
        _go_offline()
    try:
        yield
    except OSError:
        if not trouble:
            raise
        raise UserError(
            f"{name} is not on this machine, and the hub, {constants.ENDPOINT}, does not answer: {trouble}"
        ) from None
    if trouble:
        _note(trouble)


def _go_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:  # which keeps its own copy
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True


@cache
def _note(trouble: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"the hub, {constants.ENDPOINT}, does not answer ({trouble}): what is on this machine is used")

"""A user's mistake, and the one line that answers it, with the nearest good name."""

import difflib
from collections.abc import Iterable
from pathlib import Path

NEAR = 0.7
"""Least likeness (twice the letters in common, over all letters) of a name that somebody may have meant."""


class UserError(Exception):
    """A mistake in what the user gave. Its text is one line that says what and where; the command ends with code 2.

    Lines of what a library said, if it is part of the text, are joined.
    """

    def __init__(self, text: str):
        super().__init__(" ".join(line.strip() for line in text.splitlines()))


def one_line(error: BaseException | str) -> str:
    """The text of an error, or another text, on one line; for an error without a text its type."""
    return " ".join(str(error).split()) or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of the known names, or nothing if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=NEAR)
    return f"; did you mean {near[0]}?" if near else ""


def nearest_path(path: str | Path) -> str:
    """`did_you_mean` among the entries of the folder that a missing file or folder would stand in."""
    folder, name = Path(path).parent, Path(path).name
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {folder / near[0]}?" if near else ""

"""From a name in a recipe to what it names: registered, `package.module:name` or `path/to/file.py:name`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards.verdict import RewardError, did_you_mean, one_line


class UnknownName(RewardError):
    """A name that leads nowhere. Its text is one line."""


def find(what: str, name: str, registered: Mapping[str, str]) -> Any:
    """What `name` names; `registered` maps names to where they lead, `package.module:name`.

    `what` is said of it in errors. A file is loaded once a process. Raises UnknownName for a name that is not known
    (the known ones follow, the nearest first), a module or file that is missing or fails to load, and a name that is
    not in it.
    """
    place = registered.get(name, name)
    path, colon, attribute = place.rpartition(":")
    if not colon:
        raise UnknownName(f"no {what} named '{name}'; known: {', '.join(nearest_first(name, registered))}")
    try:
        module = _file(Path(path)) if path.endswith(".py") else importlib.import_module(path)
    except UnknownName as error:
        raise UnknownName(f"{what} '{name}': {error}") from None
    except Exception as error:  # whatever a user's file does when it is loaded
        raise UnknownName(f"{what} '{name}': {one_line(error)}") from error
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, [key for key in vars(module) if not key.startswith("_")])
        raise UnknownName(f"{what} '{name}': nothing called '{attribute}' there{hint}")
    return getattr(module, attribute)


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """The known names, those that are spelt most like `name` first."""
    return sorted(known, key=lambda other: (-difflib.SequenceMatcher(None, name, other).ratio(), other))


def _file(path: Path) -> ModuleType:
    """The module in a file, loaded once."""
    if not path.is_file():
        raise UnknownName(f"no file {path}")
    # Two files of the same name must not meet in sys.modules, nor shadow an installed package.
    unique = f"named_in_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None, "the path ends in .py"
    assert spec.loader is not None, "the path ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module

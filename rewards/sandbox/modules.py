"""Which files third-party modules consist of, with those that they depend on: all of them that a sandbox may read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

from rewards.verdict import RewardError, did_you_mean

_NAME = re.compile(r"[\w.-]+")


def files_of(modules: Sequence[str]) -> list[str]:
    """Folders and files of the distributions that installed modules belong to, and of all that those require.

    Raises RewardError, in one line, for a module that is not installed.
    """
    waiting = [name for module in modules for name in _owners(module.partition(".")[0])]
    found: dict[str, Distribution] = {}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # required on another system only
        waiting += [_NAME.match(line)[0] for line in found[name].requires or () if "extra ==" not in line]  # type: ignore[index]
    return sorted({path for item in found.values() for path in _top_level(item)})


def _owners(package: str) -> Sequence[str]:
    """The distributions that a package belongs to; none for one of the standard library."""
    try:
        if any(package in (path.stem, path.name) for path in map(Path, _top_level(distribution(package)))):
            return [package]  # asked by name: to read what every distribution has takes seconds
    except PackageNotFoundError:
        pass
    installed = packages_distributions()
    if package in installed:
        return installed[package]
    if find_spec(package):
        return []
    raise RewardError(f"modules: no module '{package}' is installed here{did_you_mean(package, installed)}")


def _top_level(item: Distribution) -> set[str]:
    parts = {file.parts[0] for file in item.files or ()} - {"..", "__pycache__"}
    return {str(item.locate_file(part)) for part in parts}

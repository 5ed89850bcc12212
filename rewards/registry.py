"""From the name of a reward in a recipe to the reward itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from rewards.names import find
from rewards.reward import Reward
from rewards.verdict import RewardError

ENTRY_POINT_GROUP = "rlcore.rewards"

REGISTERED = {
    "math": "rewards.math:math_reward",
    "code": "rewards.code:code_reward",
    "judge": "rewards.judge:judge_reward",
    "format": "rewards.shaping:format_reward",
    "overlong": "rewards.shaping:overlong_reward",
    "length": "rewards.shaping:length_reward",
    "repetition": "rewards.shaping:repetition_reward",
    "language": "rewards.shaping:language_reward",
    "pair_sum": "rewards.arithmetic:pair_sum_reward",
    "grid": "rewards.grids:grid_reward",
    "reasoning_gym": "rewards.reasoning_gym:reasoning_gym_reward",
}

Spec = str | Mapping[str, Any]


def load_reward(spec: Spec) -> Reward:
    """Load the reward that a recipe names.

    `spec` is a registered name, `package.module:function`, `path/to/file.py:function` or the name of an entry point of
    the group `rlcore.rewards`; or a mapping with that `name`, and optionally `weight` and `kwargs`.

    Raises RewardError, in one line, for a name that leads nowhere.
    """
    name, weight, kwargs = read_spec(spec)
    return Reward(name.rpartition(":")[2], _find(name), weight, kwargs, built_in=name in REGISTERED)


def read_spec(spec: Spec) -> tuple[str, float, dict[str, Any]]:
    """Name, weight and keyword arguments of a spec, checked for form."""
    if isinstance(spec, str):
        return spec, 1.0, {}
    if not isinstance(spec, Mapping):
        raise RewardError(f"a reward is named by a string or a mapping, not by a {type(spec).__name__}")
    unknown = sorted(set(spec) - {"name", "weight", "kwargs"})
    if unknown:
        raise RewardError(f"reward has an unknown key '{unknown[0]}'; known: name, weight, kwargs")
    name, weight, kwargs = spec.get("name"), spec.get("weight", 1.0), spec.get("kwargs") or {}
    if not isinstance(name, str) or not name:
        raise RewardError("reward without a name")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise RewardError(f"reward '{name}': weight is {weight!r}, not a number")
    if not isinstance(kwargs, Mapping):
        raise RewardError(f"reward '{name}': kwargs is a {type(kwargs).__name__}, not a mapping")
    return name, float(weight), dict(kwargs)


def spec_of(function: Callable[..., Any]) -> str:
    """The spec under which another process finds this function. Raises RewardError for a lambda or a local one."""
    name = getattr(function, "__qualname__", "")
    if not name.isidentifier():
        raise RewardError(f"reward {name or function!r} is not a function of a module: give `path/to/file.py:function`")
    module = sys.modules[function.__module__]
    if function.__module__ == "__main__":
        return f"{module.__file__}:{name}"
    return f"{function.__module__}:{name}"


def _find(name: str) -> Callable[..., Any]:
    installed = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}
    function = find("reward", name, {**installed, **REGISTERED})
    if not callable(function):
        raise RewardError(f"reward '{name}' is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]

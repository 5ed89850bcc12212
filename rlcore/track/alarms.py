"""Alarms: what is going wrong, seen in the last records of `metrics.jsonl`, said in plain words with what to do.

An alarm is a function of the history (oldest record first) that gives its message while it sounds and None otherwise.
A measurement that training has not logged often enough yet sounds no alarm.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

History = Sequence[Mapping[str, Any]]

HISTORY = 50
"""Records that an alarm may look back on."""
WINDOW = 10
"""Steps over which noisy shares are averaged."""


def recent_mean(history: History, name: str, window: int) -> float | None:
    """Mean of the last `window` finite values of a measurement; None where there are fewer."""
    values = [record[name] for record in history if record.get(name) is not None and math.isfinite(record[name])]
    return sum(values[-window:]) / window if len(values) >= window else None


def sandbagging(history: History) -> str | None:
    """Attempt 1 is more than 5 points below the base."""
    drop = recent_mean(history, "train/sandbagging", WINDOW)
    if drop is None or drop <= 0.05:
        return None
    return (
        f"attempt 1 is {100 * drop:.0f} points below the base, so that progress can be paid: sandbagging; "
        "lower the stage's bonus or raise its kl on attempt 1"
    )


def copying(history: History) -> str | None:
    """Fewer than 2 % of the answers change from one attempt to the next."""
    change = recent_mean(history, "train/answer_change", WINDOW)
    if change is None or change >= 0.02:
        return None
    return (
        f"only {100 * change:.1f} % of the answers change in attempt 2: copying; "
        "train longer in a stage that holds attempt 1 near the reference, or raise the bonus"
    )


def over_correction(history: History) -> str | None:
    """More right answers are spoilt than wrong ones repaired."""
    spoilt = recent_mean(history, "train/c_to_i", WINDOW)
    repaired = recent_mean(history, "train/i_to_c", WINDOW)
    if spoilt is None or repaired is None or spoilt <= repaired:
        return None
    return (
        f"attempt 2 spoils {100 * spoilt:.1f} % and repairs {100 * repaired:.1f} %: over-correction; "
        "raise the bonus, or the reward of attempt 2"
    )


def dead_groups(history: History) -> str | None:
    """More than 80 % of the groups have equal returns."""
    share = recent_mean(history, "train/dead_groups", WINDOW)
    if share is None or share <= 0.8:
        return None
    return (
        f"{100 * share:.0f} % of the groups have equal returns and teach nothing; "
        "choose problems that are neither always nor never solved, or a larger group"
    )


def mismatch(history: History) -> str | None:
    """The KL divergence between sampler and learner is more than 0.1."""
    kl = recent_mean(history, "learner/mismatch_kl", 1)
    if kl is None or kl <= 0.1:
        return None
    return (
        f"the sampler's probabilities are {kl:.2g} nats a token away from the learner's; "
        "check that the weights are published and that both use the same dtype and temperature"
    )


def runaway_kl(history: History) -> str | None:
    """The KL divergence of an attempt from the reference policy is more than 1."""
    names = sorted({name for record in history for name in record if name.startswith("learner/kl_t")})
    running = {name: kl for name in names if (kl := recent_mean(history, name, 1)) is not None and kl > 1}
    if not running:
        return None
    name, kl = max(running.items(), key=lambda item: item[1])
    return (
        f"attempt {name.removeprefix('learner/kl_t')} is {kl:.2g} nats a token away from the reference policy; "
        "raise the stage's kl on it or lower the learning rate"
    )


ALARMS: dict[str, Callable[[History], str | None]] = {
    "sandbagging": sandbagging,
    "copying": copying,
    "over_correction": over_correction,
    "dead_groups": dead_groups,
    "mismatch": mismatch,
    "runaway_kl": runaway_kl,
}

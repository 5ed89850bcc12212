"""Alarms: what is going wrong, seen in the last records of `metrics.jsonl`, said in plain words with what to do.

An alarm is a function of the history (oldest record first) that gives its message while it sounds and None otherwise.
A measurement that training has not logged often enough yet sounds no alarm.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import median_low
from typing import Any

History = Sequence[Mapping[str, Any]]

HISTORY = 50
"""Records that an alarm may look back on."""
WINDOW = 10
"""Steps over which noisy shares are averaged."""


def window_means(history: History, name: str, window: int) -> list[float]:
    """Means of every `window` consecutive finite values of a measurement, oldest first; empty where there are fewer."""
    values = [record[name] for record in history if record.get(name) is not None and math.isfinite(record[name])]
    sums = [0.0, *accumulate(values)]
    return [(end - start) / window for start, end in zip(sums, sums[window:], strict=False)]


def recent_mean(history: History, name: str, window: int) -> float | None:
    """Mean of the last `window` finite values of a measurement; None where there are fewer."""
    means = window_means(history, name, window)
    return means[-1] if means else None


def sandbagging(history: History) -> str | None:
    """Attempt 1 is more than 5 points below the base."""
    drop = recent_mean(history, "train/sandbagging", WINDOW)
    if drop is None or drop <= 0.05:
        return None
    return (
        f"attempt 1 fell {100 * drop:.0f} points below the base: sandbagging. What trains attempt 2 moves the weights "
        "that both share, and with credit.discount or unit trajectory attempt 1 is itself paid to leave room for "
        "progress; raise β on attempt 1 (the stage's kl) or lower α (its bonus)"
    )


def copying(history: History) -> str | None:
    """Fewer than 2 % of the answers change from one attempt to the next."""
    change = recent_mean(history, "train/answer_change", WINDOW)
    if change is None or change >= 0.02:
        return None
    return (
        f"only {100 * change:.1f} % of the answers change in attempt 2: copying; "
        "train longer in a stage that holds attempt 1 near the reference, or raise α (the stage's bonus)"
    )


def over_correction(history: History) -> str | None:
    """More right answers are spoilt than wrong ones repaired, by over a point."""
    spoilt = recent_mean(history, "train/c_to_i", WINDOW)
    repaired = recent_mean(history, "train/i_to_c", WINDOW)
    if spoilt is None or repaired is None or spoilt - repaired <= 0.01:
        return None
    return (
        f"attempt 2 spoils {100 * spoilt:.1f} % and repairs {100 * repaired:.1f} %: over-correction; "
        "raise α (the stage's bonus), or the reward of attempt 2"
    )


def collapse(history: History) -> str | None:
    """An attempt's accuracy is more than 10 points below its best window of the records at hand."""
    for attempt, means in _attempts(history, "train/t"):
        if (fall := max(means) - means[-1]) > 0.1:
            return (
                f"attempt {attempt} fell {100 * fall:.0f} points below its best within {HISTORY} steps: collapse; "
                "lower learner.lr or α (the stage's bonus), or raise β (its kl); best/ holds the policy before"
            )
    return None


def dead_groups(history: History) -> str | None:
    """More than 80 % of the groups have equal returns."""
    share = recent_mean(history, "train/dead_groups", WINDOW)
    if share is None or share <= 0.8:
        return None
    return (
        f"{100 * share:.0f} % of the groups have equal returns and teach nothing; "
        "choose problems that are neither always nor never solved, or a larger group"
    )


def reward_failures(history: History) -> str | None:
    """More than 2 % of the trajectories hold an attempt without a score."""
    share = recent_mean(history, "train/unscored", WINDOW)
    if share is None or share <= 0.02:
        return None
    return (
        f"{100 * share:.1f} % of the trajectories were not scored and teach nothing: the rewards fail; "
        "see the status of attempts in trajectories.jsonl; if it is timeout, raise rewards.deadline or rewards.workers"
    )


def truncation(history: History) -> str | None:
    """More than 20 % of an attempt's samples meet the length limit."""
    for attempt, means in _attempts(history, "train/truncated_t"):
        if means[-1] > 0.2:
            return (
                f"{100 * means[-1]:.0f} % of the samples of attempt {attempt} are cut off by the length limit, which "
                "looks like a policy that cannot answer; raise conversation.max_attempt_tokens"
            )
    return None


def length_creep(history: History) -> str | None:
    """An attempt grew by more than half over the records at hand."""
    for attempt, means in _attempts(history, "train/tokens_t"):
        if means[-1] > 1.5 * means[0]:
            return (
                f"attempt {attempt} grew from {means[0]:.0f} to {means[-1]:.0f} tokens within {HISTORY} steps: length "
                "creep; read trajectories to see whether the new tokens say anything, and whether the loss pays length"
            )
    return None


def low_entropy(history: History) -> str | None:
    """An attempt's entropy is below a fifth of what it was at the first of the records at hand."""
    for attempt, means in _attempts(history, "learner/entropy_t"):
        if means[-1] < 0.2 * means[0]:
            return (
                f"the entropy of attempt {attempt} fell from {means[0]:.2g} to {means[-1]:.2g} nats a token within "
                f"{HISTORY} steps, so that samples of a group become equal; lower learner.lr or raise the upper end "
                "of learner.clip"
            )
    return None


def skipped_steps(history: History) -> str | None:
    """Optimizer steps were passed over because a gradient was not finite."""
    skipped = sum(record.get("learner/skipped") or 0 for record in list(history)[-WINDOW:])
    if not skipped:
        return None
    return (
        f"{skipped:.0f} optimizer steps in the last {WINDOW} steps had gradients that were not finite and were passed "
        "over; lower learner.lr, or try model.dtype float32"
    )


def gradient_norm(history: History) -> str | None:
    """The gradient's norm is more than ten times its usual one, the median of what may be looked back on."""
    norms = [norm for record in history if (norm := record.get("learner/grad_norm")) and math.isfinite(norm)]
    if len(norms) < WINDOW or (latest := norms[-1]) <= 10 * (usual := median_low(norms)):
        return None
    return (
        f"the gradient's norm is {latest:.2g}, usually {usual:.2g}; clipping holds the step, but if it stays so lower "
        "learner.lr, or learner.max_grad_norm"
    )


def ratio(history: History) -> str | None:
    """The clip changes the gradient of more than 30 % of the tokens."""
    share = recent_mean(history, "learner/clip_fraction", WINDOW)
    if share is None or share <= 0.3:
        return None
    return (
        f"the ratio of {100 * share:.0f} % of the tokens is clipped: the policy leaves the one that sampled too fast; "
        "lower learner.lr, learner.minibatches or learner.epochs"
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
    running = {attempt: means[-1] for attempt, means in _attempts(history, "learner/kl_t", window=1) if means[-1] > 1}
    if not running:
        return None
    attempt, kl = max(running.items(), key=lambda item: item[1])
    return (
        f"attempt {attempt} is {kl:.2g} nats a token away from the reference policy; "
        "raise β on it (the stage's kl) or lower learner.lr"
    )


def _attempts(history: History, prefix: str, window: int = WINDOW) -> Iterator[tuple[str, list[float]]]:
    """The number of each attempt that a measurement was logged of often enough, with its means over windows."""
    names = {name for record in history for name in record if name.startswith(prefix)}
    for number in sorted(name.removeprefix(prefix) for name in names if name.removeprefix(prefix).isdecimal()):
        if means := window_means(history, prefix + number, window):
            yield number, means


ALARMS: dict[str, Callable[[History], str | None]] = {
    "sandbagging": sandbagging,
    "copying": copying,
    "over_correction": over_correction,
    "collapse": collapse,
    "dead_groups": dead_groups,
    "reward_failures": reward_failures,
    "truncation": truncation,
    "length_creep": length_creep,
    "low_entropy": low_entropy,
    "skipped_steps": skipped_steps,
    "gradient_norm": gradient_norm,
    "ratio": ratio,
    "mismatch": mismatch,
    "runaway_kl": runaway_kl,
}

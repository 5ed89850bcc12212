"""Alarms: what is going wrong, seen in the last records of `metrics.jsonl`, said in plain words with what to do.

A measurement that training has not logged often enough yet sounds no alarm.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import median_low
from typing import Any, NamedTuple

History = Sequence[Mapping[str, Any]]
"""Records, oldest first."""
Figures = dict[str, Any]
"""Fill a message; empty while all is well."""

HISTORY = 50
"""Records that an alarm may look back on."""
WINDOW = 10
"""Steps over which noisy shares are averaged."""


class Alarm(NamedTuple):
    """Calling it with the history gives the message while it sounds, else None."""

    when: str
    figures: Callable[[History], Figures]
    message: str

    def __call__(self, history: History) -> str | None:
        figures = self.figures(history)
        return self.message.format(**figures) if figures else None


def window_means(history: History, name: str, window: int) -> list[float]:
    """Means of every `window` consecutive finite values of a measurement, oldest first; empty where there are fewer."""
    values = [record[name] for record in history if record.get(name) is not None and math.isfinite(record[name])]
    sums = [0.0, *accumulate(values)]
    return [(end - start) / window for start, end in zip(sums, sums[window:], strict=False)]


def recent_mean(history: History, name: str, window: int) -> float | None:
    """Mean of the last `window` finite values of a measurement; None where there are fewer."""
    means = window_means(history, name, window)
    return means[-1] if means else None


def _mean(
    name: str, *, above: float = math.inf, below: float = -math.inf, window: int = WINDOW
) -> Callable[[History], Figures]:
    """The recent mean of a measurement, where it is out of bounds."""

    def figures(history: History) -> Figures:
        mean = recent_mean(history, name, window)
        return {} if mean is None or below <= mean <= above else {"mean": mean, "percent": 100 * mean}

    return figures


def _attempt(prefix: str, ill: Callable[[list[float]], bool], window: int = WINDOW) -> Callable[[History], Figures]:
    """The first attempt (or age) whose window means of a measurement are `ill`: its number, its first and last mean."""

    def found(history: History) -> Iterator[Figures]:
        names = {name.removeprefix(prefix) for record in history for name in record if name.startswith(prefix)}
        for number in sorted(filter(str.isdecimal, names)):
            if (means := window_means(history, prefix + number, window)) and ill(means):
                fall = 100 * (max(means) - means[-1])
                yield {
                    "attempt": number,
                    "first": means[0],
                    "last": means[-1],
                    "percent": 100 * means[-1],
                    "fall": fall,
                }

    return lambda history: next(found(history), {})


def _over_correction(history: History) -> Figures:
    spoilt, repaired = (recent_mean(history, f"train/{flip}", WINDOW) for flip in ("c_to_i", "i_to_c"))
    if spoilt is None or repaired is None or spoilt - repaired <= 0.01:
        return {}
    return {"spoilt": 100 * spoilt, "repaired": 100 * repaired}


def _skipped_steps(history: History) -> Figures:
    skipped = sum(record.get("learner/skipped") or 0 for record in list(history)[-WINDOW:])
    return {"skipped": skipped} if skipped else {}


def _gradient_norm(history: History) -> Figures:
    norms = [norm for record in history if (norm := record.get("learner/grad_norm")) and math.isfinite(norm)]
    if len(norms) < WINDOW or norms[-1] <= 10 * median_low(norms):
        return {}
    return {"latest": norms[-1], "usual": median_low(norms)}


ALARMS = {
    "sandbagging": Alarm(
        "Attempt 1 is more than 5 points below the base",
        _mean("train/sandbagging", above=0.05),
        "attempt 1 fell {percent:.0f} points below the base: sandbagging. What trains attempt 2 moves the weights that "
        "both share, and with credit.discount or unit trajectory attempt 1 is itself paid to leave room for progress; "
        "raise β on attempt 1 (the stage's kl) or lower α (its bonus)",
    ),
    "copying": Alarm(
        "Fewer than 2 % of the answers change from one attempt to the next",
        _mean("train/answer_change", below=0.02),
        "only {percent:.1f} % of the answers change in attempt 2: copying; train longer in a stage that holds attempt "
        "1 near the reference, or raise α (the stage's bonus)",
    ),
    "over_correction": Alarm(
        "More right answers are spoilt than wrong ones repaired, by over a point",
        _over_correction,
        "attempt 2 spoils {spoilt:.1f} % and repairs {repaired:.1f} %: over-correction; raise α (the stage's bonus), "
        "or the reward of attempt 2",
    ),
    "collapse": Alarm(
        "An attempt's accuracy is more than 10 points below its best window of the records at hand",
        _attempt("train/t", lambda means: max(means) - means[-1] > 0.1),
        f"attempt {{attempt}} fell {{fall:.0f}} points below its best within {HISTORY} steps: collapse; lower "
        "learner.lr or α (the stage's bonus), or raise β (its kl); best/ holds the policy before",
    ),
    "dead_groups": Alarm(
        "More than 80 % of the groups have equal rewards",
        _mean("train/dead_groups", above=0.8),
        "{percent:.0f} % of the groups have equal rewards and teach nothing; choose problems that are neither always "
        "nor never solved, or a larger group",
    ),
    "reward_failures": Alarm(
        "More than 2 % of the trajectories hold an attempt without a score",
        _mean("train/unscored", above=0.02),
        "{percent:.1f} % of the trajectories were not scored and teach nothing: the rewards fail; see the status of "
        "attempts in trajectories.jsonl; if it is timeout, raise rewards.deadline or rewards.workers",
    ),
    "truncation": Alarm(
        "More than 20 % of an attempt's samples meet the length limit",
        _attempt("train/truncated_t", lambda means: means[-1] > 0.2),
        "{percent:.0f} % of the samples of attempt {attempt} are cut off by the length limit, which looks like a "
        "policy that cannot answer; raise conversation.max_attempt_tokens",
    ),
    "length_creep": Alarm(
        "An attempt grew by more than half over the records at hand",
        _attempt("train/tokens_t", lambda means: means[-1] > 1.5 * means[0]),
        f"attempt {{attempt}} grew from {{first:.0f}} to {{last:.0f}} tokens within {HISTORY} steps: length creep; "
        "read trajectories to see whether the new tokens say anything, and whether the loss pays length",
    ),
    "low_entropy": Alarm(
        "An attempt's entropy is below a fifth of what it was at the first of the records at hand",
        _attempt("learner/entropy_t", lambda means: means[-1] < 0.2 * means[0]),
        f"the entropy of attempt {{attempt}} fell from {{first:.2g}} to {{last:.2g}} nats a token within {HISTORY} "
        "steps, so that samples of a group become equal; lower learner.lr or raise the upper end of learner.clip",
    ),
    "skipped_steps": Alarm(
        "Optimizer steps were passed over because a gradient was not finite",
        _skipped_steps,
        f"{{skipped:.0f}} optimizer steps in the last {WINDOW} steps had gradients that were not finite and were "
        "passed over; lower learner.lr, or try model.dtype float32",
    ),
    "gradient_norm": Alarm(
        "The gradient's norm is more than ten times its usual one, the median of what may be looked back on",
        _gradient_norm,
        "the gradient's norm is {latest:.2g}, usually {usual:.2g}; clipping holds the step, but if it stays so lower "
        "learner.lr, or learner.max_grad_norm",
    ),
    "ratio": Alarm(
        "The clip changes the gradient of more than 30 % of the tokens",
        _mean("learner/clip_fraction", above=0.3),
        "the ratio of {percent:.0f} % of the tokens is clipped: the policy leaves the one that sampled too fast; lower "
        "learner.lr, learner.minibatches or learner.epochs",
    ),
    "mismatch": Alarm(
        "The KL divergence between sampler and learner is more than 0.1",
        _mean("learner/mismatch_kl", above=0.1, window=1),
        "the sampler's probabilities are {mean:.2g} nats a token away from the learner's; check that the weights are "
        "published and that both use the same dtype and temperature",
    ),
    "staleness": Alarm(
        "The KL divergence of tokens of some age from the learner grew to over three times what it was, and above 0.01",
        _attempt("learner/mismatch_kl_lag", lambda means: means[-1] > max(0.01, 3 * means[0])),
        "what was sampled {attempt} updates before it is learned grew from {first:.2g} to {last:.2g} nats a token away "
        f"from the learner within {HISTORY} steps; lower batch.ahead or learner.lr",
    ),
    "runaway_kl": Alarm(
        "The KL divergence of an attempt from the reference policy is more than 1",
        _attempt("learner/kl_t", lambda means: means[-1] > 1, window=1),
        "attempt {attempt} is {last:.2g} nats a token away from the reference policy; raise β on it (the stage's kl) "
        "or lower learner.lr",
    ),
}

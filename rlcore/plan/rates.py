"""The speed of a rank that samples, learns and publishes: estimated from the cluster, or measured in a run."""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from rlcore.errors import UserError
from rlcore.evaluate.lines import MetricsLine
from rlcore.files import read_records
from rlcore.plan.cluster import Cluster
from rlcore.plan.lengths import Lengths
from rlcore.plan.memory import dtype_bytes, shared_by
from rlcore.plan.shapes import Shapes
from rlcore.recipe import Recipe

WARM_UP = 2
"""Steps at the start of a run that are not counted, if it has more."""
_PHASES = ("rollout", "learner", "publish")
NEEDED = ("learner/tokens", *(f"time/{name}" for name in _PHASES))


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that one rank takes."""

    decode_step: float
    """A decoding step without rows: the weights are read once, kernels are launched."""
    decode_row: float
    """Each row of a decoding step: its keys and values are read, its token is computed."""
    prompt_token: float
    """A prompt token in the sampler."""
    learner_token: float
    """A token in the learner: forward, backward and, if some β > 0, the reference."""
    optimizer_step: float
    publish: float
    """A publication of new weights to the samplers."""

    def scaled(self, sampling: float, learning: float, publish: float) -> "Rates":
        """These rates with the times of sampling and learning multiplied, and `publish` in place of its time."""
        factors = {"decode_step": sampling, "decode_row": sampling, "prompt_token": sampling}
        factors |= {"learner_token": learning, "optimizer_step": learning}
        return replace(self, publish=publish, **{name: getattr(self, name) * by for name, by in factors.items()})


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the steps of a run, in seconds, and the mean tokens of a response."""

    rollout: float
    learner: float
    publish: float
    response: float


def estimated_rates(recipe: Recipe, shapes: Shapes, cluster: Cluster, lengths: Lengths) -> Rates:
    """Rates from the cluster's peaks and shares.

    A token costs 2 P floating point operations forward and 4 P backward (Kaplan et al. 2020, "Scaling Laws for Neural
    Language Models", section 2.1) and, in attention, 4 and 8 times layers x hidden x the mean number of tokens it sees.
    Decoding reads the weights once a step and the keys and values of every row.
    """
    flops = cluster.tflops * 1e12 * cluster.compute_share
    bandwidth = cluster.memory_gb_per_s * 1e9 * cluster.memory_share
    size, seen, rollout = dtype_bytes(recipe), lengths.conversation / 2, recipe.rollout
    forward = 2 * shapes.computed + 4 * shapes.layers * shapes.hidden * seen
    reference = any(any(stage.kl) for stage in recipe.stages)
    cached = 2 * shapes.layers * shapes.kv_size * size * seen
    weights, ring = shapes.parameters * size, cluster.ring_gb_per_s * 1e9
    shared = shared_by(rollout)
    # ZeRO-3 gathers the weights in both passes and scatters the gradients; below, gradients are reduced and spread.
    collective = (3 if recipe.learner.zero == 3 else 2) * weights / ring if cluster.gpus > 1 else 0.0
    published = rollout.mode == "servers" or recipe.learner.zero == 3
    return Rates(
        decode_step=weights / bandwidth / shared + cluster.token_overhead_ms / 1e3,
        decode_row=max(cached / bandwidth, forward / flops) / shared,
        prompt_token=forward / flops / shared,
        learner_token=(3 + reference) * forward / flops,
        optimizer_step=collective,
        publish=weights / ring if published else 0.0,
    )


def measured_run(run: Path) -> Measured:
    """The measurements in the metrics.jsonl of a run. Raises UserError if it has no measured step."""
    path = run / "metrics.jsonl" if run.is_dir() else run
    records = read_records(path, MetricsLine)
    steps = [record for record in records if all(record.get(name) is not None for name in NEEDED)]
    if not steps:
        raise UserError(f"measurements {path} hold no training step with {', '.join(NEEDED)}")
    steps = steps[WARM_UP:] or steps
    rollout, learner, publish = (statistics.median(step[f"time/{name}"] for step in steps) for name in _PHASES)
    lengths = [value for step in steps for name, value in step.items() if name.startswith("train/tokens_t") and value]
    return Measured(rollout, learner, publish, statistics.fmean(lengths) if lengths else float("nan"))

"""The command `rlcore plan`."""

import argparse
import math
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from rlcore.errors import UserError
from rlcore.plan.cluster import Cluster
from rlcore.plan.lengths import Lengths, assumed_lengths
from rlcore.plan.memory import learner_ranks
from rlcore.plan.rates import Rates, estimated_rates, measured_run
from rlcore.plan.report import print_plan
from rlcore.plan.shapes import Shapes, recipe_shapes
from rlcore.plan.simulation import simulate
from rlcore.recipe import Recipe, load_section


def plan(recipe: Recipe, options: argparse.Namespace) -> None:
    """Prints the plan. Raises UserError if the cluster, the model or the run cannot be read."""
    _check(options)
    cluster = _cluster(options)
    shapes = recipe_shapes(recipe, options.model_config)
    lengths = assumed_lengths(recipe, options.prompt_tokens, options.response_tokens, options.spread)
    if learner_ranks(recipe, cluster.gpus)[0] < 1:
        raise UserError(f"rollout.start_servers takes every GPU of {cluster.gpus}; none is left to the learner")
    rates = estimated_rates(recipe, shapes, cluster, lengths)
    origin = (
        f"estimated: the learner reaches {cluster.compute_share:.0%} of {cluster.tflops:g} TFLOPS, decoding "
        f"{cluster.memory_share:.0%} of {cluster.memory_gb_per_s:g} GB/s and {cluster.token_overhead_ms:g} ms a step"
    )
    if options.calibrate:
        rates, lengths = calibrated(recipe, shapes, cluster, lengths, options.calibrate, options.calibrate_gpus)
        origin = f"calibrated on {options.calibrate}, {options.calibrate_gpus} ranks"
    print_plan(Console(), recipe, shapes, cluster, lengths, rates, origin)


def calibrated(
    recipe: Recipe, shapes: Shapes, cluster: Cluster, lengths: Lengths, run: Path, gpus: int
) -> tuple[Rates, Lengths]:
    """Rates and lengths under which the simulation of `recipe` on `gpus` GPUs takes as long as `run` took on them."""
    measured = measured_run(run)
    if measured.response > 0:
        lengths = replace(lengths, response=measured.response)
    there = cluster.model_copy(update={"gpus": gpus})
    rates = estimated_rates(recipe, shapes, there, lengths)
    learners, samplers = learner_ranks(recipe, gpus)
    simulated = simulate(recipe, lengths, rates, learners=learners, samplers=samplers)
    sampling, learning = measured.rollout / simulated.sampling, measured.learner / simulated.learning
    return rates.scaled(sampling, learning, measured.publish), lengths


def _check(options: argparse.Namespace) -> None:
    """Raises UserError for a number that is not finite, or out of range."""
    for name in ("gpus", "gpu_memory", "prompt_tokens", "response_tokens", "calibrate_gpus", "spread"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf and (name, value) != ("spread", 0):  # not true of NaN
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")


def _cluster(options: argparse.Namespace) -> Cluster:
    given = {"gpus": options.gpus, "memory_gib": options.gpu_memory}
    given = {name: value for name, value in given.items() if value is not None}
    if options.cluster:
        return load_section(Cluster, options.cluster, [f"{name}={value}" for name, value in given.items()])
    count = options.gpus or 8
    return Cluster.model_validate({"name": f"{count} GPU{'s' * (count > 1)} like an H100", **given})

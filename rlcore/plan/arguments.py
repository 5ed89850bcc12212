"""The arguments of `rlcore plan`."""

import argparse
from pathlib import Path

EPILOG = """examples:
  rlcore plan recipes/quickstart.yaml --gpus 1                            eight H100s unless given otherwise
  rlcore plan RECIPE --cluster recipes/clusters/32_h100_nodes.yaml        a cluster as a file
  rlcore plan RECIPE learner.zero=3 --gpus 16 --gpu-memory 40             try a setting before it costs anything
  rlcore plan RECIPE --calibrate runs/one --calibrate-gpus 8              with the rates that a run of it measured
  rlcore plan RECIPE --model-config config.json                           where the hub cannot be reached

Memory follows from the recipe and the model's shapes. Times are estimates from the cluster's peaks until they are
calibrated. rlcore/plan/README.md says what each part is and what is assumed."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Arguments of `rlcore plan` beside the recipe."""
    command.epilog, command.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    command.add_argument("--cluster", type=Path, metavar="FILE", help="a YAML file as in recipes/clusters")
    command.add_argument("--gpus", type=int, help="GPUs of the cluster")
    command.add_argument("--gpu-memory", type=float, metavar="GIB", help="of each GPU")
    command.add_argument("--model-config", type=Path, metavar="FILE", help="config.json of the recipe's model")
    command.add_argument("--prompt-tokens", type=int, help="mean of a prompt; a quarter of its limit when left out")
    command.add_argument("--response-tokens", type=int, help="mean of a response; half of its limit when left out")
    command.add_argument("--spread", type=float, default=0.8, help="standard deviation of a response over its mean")
    command.add_argument("--calibrate", type=Path, metavar="RUN", help="take rates and lengths from its metrics.jsonl")
    command.add_argument("--calibrate-gpus", type=int, default=1, metavar="N", help="ranks that the run had")

"""`python -m rlcore.rollout.servers.serve RECIPE [key=value ...]`: becomes the vLLM server of a recipe, at $PORT.

It listens on all addresses, for learners on other machines that name its URL in `rollout.servers`.
"""

import argparse
import os
import sys

import torch
from transformers import AutoConfig

from rlcore.errors import UserError, one_line
from rlcore.recipe import Recipe, load_recipe
from rlcore.rollout.conversation import MAX_MESSAGE_TOKENS
from rlcore.rollout.servers.processes import serve_command, server_environment
from rlcore.rollout.vllm.arguments import engine_arguments, server_arguments

AS_A_SERVER = "engine=vllm", "mode=servers", "servers=[]", "start_servers=1", "vllm.gpus=[]"
"""Overrides that make any recipe one that starts a single server."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rlcore.rollout.servers.serve", description=__doc__)
    parser.add_argument("recipe", help="path of the recipe, a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings in place of the recipe's")
    options = parser.parse_args()
    try:
        recipe = load_recipe(options.recipe, [*options.overrides, *(f"rollout.{setting}" for setting in AS_A_SERVER)])
        command, environment = server_of(recipe, _port())
    except UserError as error:
        print(f"rlcore: {error}", file=sys.stderr)
        sys.exit(2)
    os.execvpe(command[0], command, environment)


def server_of(recipe: Recipe, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment. Raises UserError for a recipe whose model has no folder or hub name."""
    path, section, lora = recipe.model.path, recipe.rollout, recipe.adapters_apart
    if path is None:
        raise UserError("a server needs model.path: each process would make another scratch model")
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"model {path} cannot be loaded: {one_line(error)}") from None
    on_cpu = recipe.device == "cpu" or not torch.cuda.is_available()
    # Room for the messages between the attempts too, whose length the learner finds out from the tokenizer.
    longest = max(
        talk.max_prompt_tokens + talk.replies * (talk.max_attempt_tokens + 2 * MAX_MESSAGE_TOKENS)
        for talk in (recipe.conversation, recipe.held_out_conversation)
    )
    longest = min(longest, getattr(config.get_text_config(), "max_position_embeddings", longest))
    arguments = engine_arguments(section, config, getattr(torch, recipe.model.dtype), longest, on_cpu=on_cpu)
    arguments |= {"model": path, **server_arguments(section.vllm, lora), **section.vllm.args}
    environment = server_environment(None, on_cpu=on_cpu, ipc=section.vllm.transfer == "ipc", lora=bool(lora))
    return serve_command(section.vllm.command, port, arguments, host="0.0.0.0"), environment


def _port() -> int:
    text = os.environ.get("PORT", "8000")
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UserError(f"PORT={text} is no port")
    return int(text)


if __name__ == "__main__":
    main()

"""A run's policy as a folder that transformers, vLLM and peft load."""

from pathlib import Path

import torch

from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.files import damage
from rlcore.learner.zero.state_files import SavedState
from rlcore.learner.zero.weights import gathered_adapters, gathered_weights
from rlcore.policy import Policy, save_policy
from rlcore.policy.lora import add_lora, save_adapter
from rlcore.recipe import Recipe, saved_recipe
from rlcore.session.build import first_policy
from rlcore.train.checkpoints import LEARNER, STATE, read_state, saved_checkpoints


def export(source: Path, output: Path, *, adapter: bool = False) -> Path:
    """Writes the policy of a run's newest whole checkpoint, or of the checkpoint given, into a new folder.

    Adapters are merged into the weights, or with `adapter` written alone, as peft does. Raises UserError for a source
    without a whole checkpoint, and for a folder that holds something.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is not empty: name a new folder")
    checkpoint = _whole_checkpoint(source)
    recipe = saved_recipe(read_state(checkpoint)["recipe"], checkpoint)
    if adapter and not recipe.model.lora:
        raise UserError(f"{source} was trained without adapters")
    policy = first_policy(recipe, load_problems(recipe.data) if recipe.model.scratch else [])
    if recipe.model.lora:
        add_lora(policy.model, recipe.model.lora, recipe.seed)
    _fill(policy, checkpoint)
    if adapter:
        _save_adapter(policy, recipe, output)
    else:
        save_policy(policy, output, dict(gathered_weights(policy.model)))
    return output


def _whole_checkpoint(source: Path) -> Path:
    """`source` itself if it is a checkpoint, else the newest one of the run that is not damaged."""
    if (source / STATE).exists():
        reason = damage(source)
        if reason:
            raise UserError(f"checkpoint {source} is damaged: {reason}")
        return source
    for checkpoint in reversed(saved_checkpoints(source / "checkpoints").values()):
        if damage(checkpoint) is None:
            return checkpoint
    plain = f"; {source / 'final'} is such a folder already" if (source / "final").is_dir() else ""
    raise UserError(f"{source} is neither a checkpoint nor a run with a whole one{plain}")


@torch.no_grad()
def _fill(policy: Policy, checkpoint: Path) -> None:
    parameters = dict(policy.model.named_parameters())
    for name, values in SavedState(checkpoint / LEARNER).weights():
        if name not in parameters or parameters[name].numel() != values.numel():
            raise UserError(f"checkpoint {checkpoint} is of another model: {name}")
        parameters[name].copy_(values.view_as(parameters[name]))


def _save_adapter(policy: Policy, recipe: Recipe, output: Path) -> None:
    assert recipe.model.lora
    output.mkdir(parents=True, exist_ok=True)
    save_adapter(output, recipe.model.lora, dict(gathered_adapters(policy.model)), recipe.model.path)
    policy.tokenizer.save_pretrained(output)

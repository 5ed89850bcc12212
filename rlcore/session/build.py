"""What training and evaluation both need of a recipe: problems, a policy, and rollouts that are scored."""

import copy
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers.utils import logging

from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.policy import Policy, load_policy, stop_ids
from rlcore.ranks import Ranks
from rlcore.recipe import Recipe
from rlcore.rollout import Conversation, Rollout, RolloutEngine, Scorer, TorchEngine
from rlcore.types import Problem

GIB = 1 << 30
NAMED = 8
"""Problems that a line about those left out names."""


class Setup:
    """Everything but the learner; `close` ends its reward workers and its rollout engine.

    Raises UserError for anything in the recipe that cannot be had. `problems` is empty where the recipe trains on none
    and needs none to train a tokenizer on, `held_out` where it has no evaluation.
    """

    def __init__(self, recipe: Recipe, ranks: Ranks, *, training: bool = True):
        needs_problems = (training and (recipe.steps or recipe.sft)) or recipe.model.scratch
        say = print if ranks.first else _nothing
        self.problems = load_problems(recipe.data, say) if needs_problems else []
        asked_of = load_problems(recipe.evaluate.data, say)[: recipe.evaluate.problems] if recipe.evaluate else []
        self.policy = first_policy(recipe, self.problems)
        logging.disable_progress_bar()  # loading a large model shows its progress; saving one does not
        talks = (recipe.conversation, recipe.held_out_conversation)
        self.conversation, asked = (Conversation(self.policy.tokenizer, talk, stop_ids(self.policy)) for talk in talks)
        for talk in (self.conversation, asked):
            _check_model_length(talk, self.policy)
        self.problems = fitting_problems(self.conversation, self.problems, say)
        skip = bool(recipe.evaluate and recipe.evaluate.data.skip_bad_rows)
        self.held_out = fitting_problems(asked, asked_of, say if skip else None)
        if recipe.learner.zero < 3:  # ZeRO-3 moves it to the device in parts
            torch.nn.Module.to(self.policy.model, ranks.device)
        self._engine = _start_engine(
            recipe, self.policy, ranks.device, max(self.conversation.max_tokens, asked.max_tokens)
        )
        self._scorer = Scorer(recipe.rewards)
        gc.collect()
        gc.freeze()  # what is loaded now stays: else the collector walks through it again and again while sampling
        self.rollout = Rollout(recipe, self._engine, self.conversation, self._scorer)
        self.held_out_rollout = Rollout(recipe, self._engine, asked, self._scorer)

    def close(self) -> None:
        self._scorer.close()
        self._engine.close()


def first_policy(recipe: Recipe, problems: list[Problem]) -> Policy:
    """The policy that a run starts from; `problems` are what a scratch one's tokenizer is trained on."""
    texts = (text for problem in problems for text in _texts(problem))
    return load_policy(recipe.model, texts, recipe.seed, embedded=recipe.rollout.engine == "torch")


def _start_engine(recipe: Recipe, policy: Policy, device: torch.device, max_tokens: int) -> RolloutEngine:
    """The rollout engine that the recipe names, with the policy's weights."""
    section, stops = recipe.rollout, stop_ids(policy)
    if section.mode == "servers":
        from rlcore.rollout.servers.engine import ServersEngine

        folder = Path(recipe.output) / "servers"
        return ServersEngine(section, policy.model, stops, max_tokens, folder, device, recipe.adapters_apart)
    if section.engine == "vllm":
        from rlcore.rollout.vllm.in_process import InProcessEngine
        from rlcore.rollout.vllm.tensor_parallel import TensorParallelEngine

        kind = TensorParallelEngine if section.vllm.tensor_parallel > 1 else InProcessEngine
        return kind(section, policy.model, recipe.model.path, stops, max_tokens, device, recipe.adapters_apart)
    # ZeRO-3 takes the policy's parameters apart, so each rank samples from a whole copy on its device; up to ZeRO-2 the
    # engine samples from the learner's own tensors.
    split = recipe.learner.zero == 3
    sampled = copy.deepcopy(policy.model) if split else policy.model
    torch.nn.Module.to(sampled, device)
    kv_bytes = int(section.kv_memory * GIB) if section.kv_memory else None
    return TorchEngine(sampled, stops, slots=section.slots, max_tokens=max_tokens, kv_bytes=kv_bytes, live=not split)


def _nothing(text: str) -> None:
    """What the ranks after the first say."""


def _texts(problem: Problem) -> Iterator[str]:
    yield from (message["content"] for message in problem.messages)
    yield from (value for value in problem.columns.values() if isinstance(value, str))


def fitting_problems(
    conversation: Conversation, problems: list[Problem], say: Callable[[str], object] | None
) -> list[Problem]:
    """The problems whose prompts have at most `conversation.max_prompt_tokens` tokens, in their order.

    `say` is given one line about those left out, if any. Raises UserError where none fits, or, without `say`, where
    any does not.
    """
    lengths = conversation.prompt_tokens(problems)
    limit = conversation.max_prompt_tokens
    long = [(count, problem.id) for count, problem in zip(lengths, problems, strict=True) if count > limit]
    if not long:
        return problems
    count, name = max(long)
    told = f"longer than conversation.max_prompt_tokens {limit}: the prompt of problem {name} has {count} tokens"
    if say is None:
        raise UserError(
            f"evaluate.data: {len(long)} of {len(problems)} prompts are {told}; evaluate.data.skip_bad_rows=true "
            "leaves them out"
        )
    if len(long) == len(problems):
        raise UserError(f"data: all prompts are {told}")
    names = ", ".join(name for _, name in long[:NAMED]) + (", ..." if len(long) > NAMED else "")
    say(f"data: {len(long)} of {len(problems)} problems are left out ({names}), {told}")
    return [problem for count, problem in zip(lengths, problems, strict=True) if count <= limit]


def _check_model_length(conversation: Conversation, policy: Policy) -> None:
    limit = getattr(policy.model.config, "max_position_embeddings", None)
    if limit and conversation.max_tokens > limit:
        raise UserError(
            f"conversation: a prompt of {conversation.max_prompt_tokens} tokens and {conversation.replies} replies "
            f"of {conversation.max_attempt_tokens} make up to {conversation.max_tokens}; the model takes {limit}"
        )

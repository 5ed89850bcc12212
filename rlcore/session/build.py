"""A session: the problems, policy and scored rollouts of a recipe, for training and evaluation alike."""

import gc
from collections.abc import Callable, Iterator

import torch
from transformers import PretrainedConfig
from transformers.utils import logging

from rlcore.data import load_held_out, load_problems
from rlcore.errors import UserError
from rlcore.policy import Policy, load_policy, stop_ids
from rlcore.ranks import Ranks
from rlcore.recipe import Recipe
from rlcore.rollout import Conversation, Rollout, RolloutEngine, Scorer
from rlcore.session.inputs import read_inputs
from rlcore.types import Problem

NAMED = 8
"""Most problems named in a line about those left out."""
Say = Callable[[str], object]


class Session:
    """Everything but the learner; `close` stops the reward workers and the rollout engine.

    `problems` is empty unless the recipe trains on them or trains a tokenizer on their texts, `held_out` unless it has
    an evaluation; `inputs` are digests of what was read. Raises UserError where anything in the recipe is unavailable.
    """

    def __init__(self, recipe: Recipe, ranks: Ranks, *, training: bool = True):
        needs_problems = (training and (recipe.steps or recipe.sft)) or recipe.model.scratch
        say: Say = print if ranks.first else lambda text: None
        recipe.rollout.entry.check(recipe.rollout)
        shown = [recipe.sft.column] if recipe.sft and recipe.sft.rows == "column" else []
        self.problems = load_problems(recipe.data, say, shown) if needs_problems else []
        asked_of = load_held_out(recipe.evaluate.data, say)[: recipe.evaluate.problems] if recipe.evaluate else []
        self.inputs = read_inputs(recipe, self.problems, asked_of)
        self.policy = first_policy(recipe, self.problems)
        logging.disable_progress_bar()  # shown while loading a large model, not while saving one
        talks = (recipe.conversation, recipe.held_out_conversation)
        self.conversation, asked = (Conversation(self.policy.tokenizer, talk, stop_ids(self.policy)) for talk in talks)
        for talk in (self.conversation, asked):
            check_model_length(talk, self.policy.model.config)
        for note in dict.fromkeys((*self.conversation.notes, *asked.notes)):
            say(note)
        for name, problems in (("data", self.problems), ("evaluate.data", asked_of)):
            _note_control_tokens(self.conversation, problems, name, say)
        self.problems = fitting_problems(self.conversation, self.problems, say, shown=ranks.first)
        skip = bool(recipe.evaluate and recipe.evaluate.data.skip_bad_rows)
        self.held_out = fitting_problems(asked, asked_of, say if skip else None, shown=ranks.first)
        if recipe.learner.zero < 3 or recipe.sft:  # ZeRO-3 moves it to the device in parts
            torch.nn.Module.to(self.policy.model, ranks.device)
        longest = max(self.conversation.max_tokens, asked.max_tokens)
        self._engine: RolloutEngine = recipe.rollout.entry.start(
            recipe, self.policy, device=ranks.device, max_tokens=longest
        )
        self._scorer = Scorer(recipe.rewards)
        gc.collect()
        gc.freeze()  # spares the collector objects that live as long as the session
        self.rollout = Rollout(recipe, self._engine, self.conversation, self._scorer)
        self.held_out_rollout = Rollout(recipe, self._engine, asked, self._scorer)

    def close(self) -> None:
        self._scorer.close()
        self._engine.close()
        gc.unfreeze()  # runs may follow each other in one process


def first_policy(recipe: Recipe, problems: list[Problem]) -> Policy:
    """The policy that a run starts from; the tokenizer of a scratch one is trained on `problems`."""
    texts = (text for problem in problems for text in _texts(problem))
    return load_policy(recipe.model, texts, recipe.seed, embedded=recipe.rollout.entry.weights == "learner")


def _texts(problem: Problem) -> Iterator[str]:
    yield from (message["content"] for message in problem.messages)
    yield from (value for value in problem.columns.values() if isinstance(value, str))


def fitting_problems(
    conversation: Conversation, problems: list[Problem], say: Say | None, *, shown: bool = False
) -> list[Problem]:
    """The problems that fit `conversation.max_prompt_tokens` and suit the conversation's kind, in order.

    `say` receives one line for each reason to leave problems out. Many prompts are read under a progress bar if
    `shown`. Raises UserError if none is left, or, without `say`, if any is left out.
    """
    limit = conversation.max_prompt_tokens
    counts = dict(zip((p.id for p in problems), conversation.prompt_tokens(problems, shown=shown), strict=True))
    long = [name for name, count in counts.items() if count > limit]
    if long:
        worst = max(long, key=lambda name: (counts[name], name))
        told = f"longer than conversation.max_prompt_tokens {limit}: the prompt of problem {worst} has {counts[worst]}"
        problems = _without(problems, long, f"{told} tokens", say)
    refused = {problem.id: reason for problem in problems if (reason := conversation.kind.refusal(problem))}
    if refused:
        told = f"unfit for conversation.kind {conversation.kind_name}: {next(iter(refused.values()))}"
        problems = _without(problems, list(refused), told, say)
    return problems


def _note_control_tokens(conversation: Conversation, problems: list[Problem], name: str, say: Say) -> None:
    found = [tokens for p in problems if (tokens := conversation.template.control_tokens(p.messages))]
    if found:
        named = ", ".join(sorted(set().union(*found)))
        say(f"{name}: {len(found)} of {len(problems)} problems spell control tokens, which the model obeys: {named}")


def _without(problems: list[Problem], names: list[str], told: str, say: Say | None) -> list[Problem]:
    verb = "is" if len(names) == 1 else "are"
    if say is None:
        raise UserError(
            f"evaluate.data: {len(names)} of {len(problems)} prompts {verb} {told}; evaluate.data.skip_bad_rows=true "
            "leaves them out"
        )
    if len(names) == len(problems):
        raise UserError(f"data: all prompts are {told}")
    named = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    say(f"data: {len(names)} of {len(problems)} problems {verb} left out ({named}), {told}")
    left_out = set(names)
    return [problem for problem in problems if problem.id not in left_out]


def check_model_length(conversation: Conversation, config: PretrainedConfig) -> None:
    """Raises UserError if a conversation may be longer than the model of this configuration takes."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit and conversation.max_tokens > limit:
        raise UserError(
            f"conversation: {conversation.max_prompt_tokens} tokens of prompt + {conversation.replies} x "
            f"{conversation.max_attempt_tokens} of replies + {conversation.replies - 1} x "
            f"{conversation.max_message_tokens} of messages between them make {conversation.max_tokens}; the model "
            f"takes {limit}; lower conversation.max_attempt_tokens"
        )

"""`rlcore doctor RECIPE`: whether a run of the recipe would start on this machine, without its weights."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rewards import RewardError, RewardPool, Verdict
from rewards.cli import GOLD
from rlcore.data import load_held_out, load_problems
from rlcore.doctor import Finding
from rlcore.errors import UserError
from rlcore.learner.layers import check_fused_kernels
from rlcore.plan.memory import learner_ranks
from rlcore.plan.start import is_served, memory_demand
from rlcore.policy.load import check_quantize, load_config, load_tokenizer
from rlcore.ranks import device_kind
from rlcore.recipe import Recipe
from rlcore.recipe.schema import DataConfig
from rlcore.rollout import Conversation
from rlcore.rollout.scoring import for_rewards
from rlcore.session.build import check_model_length, first_policy, fitting_problems
from rlcore.track.dashboard import check_tensorboard
from rlcore.types import Problem

MOST_REFERENCES = 64
"""References of a data set that the rewards are tried on, spread over all of it."""
NAMED = 3


def inspect(recipe: Recipe) -> Iterator[Finding]:
    """Memory, device and packages, then data, prompts, template and rewards of training and of evaluation."""
    yield from memory(recipe)
    yield from lacking(recipe)
    training = bool(recipe.stages or recipe.sft)
    trained_on: list[Problem] = []
    if training or recipe.model.scratch:
        yield from _tried("data", lambda: data(recipe.data, "data", trained_on))
    if training and trained_on:
        yield from _tried("data", lambda: _asked(recipe, trained_on, trained_on, "data"))
    if recipe.evaluate:
        asked_of: list[Problem] = []
        section, most = recipe.evaluate.data, recipe.evaluate.problems
        yield from _tried("evaluate", lambda: data(section, "evaluate", asked_of))
        if asked_of:
            yield from _tried("evaluate", lambda: _asked(recipe, trained_on, asked_of[:most], "evaluate"))


def _tried(topic: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings; a user's mistake that ends the look is one more."""
    try:
        yield from look()
    except UserError as error:
        yield Finding(topic, "bad", str(error))


def _refused(topic: str, check: Callable[[], object]) -> Iterator[Finding]:
    """A finding if the check, which a run makes as it starts, would end it."""
    try:
        check()
    except UserError as error:
        yield Finding(topic, "bad", str(error))


def lacking(recipe: Recipe) -> Iterator[Finding]:
    """What a run would say, as it starts, that this machine lacks for it."""
    kind = "cuda" if recipe.device != "cpu" and torch.cuda.is_available() else "cpu"
    yield from _refused("device", lambda: device_kind(recipe.device))
    if not is_served(recipe, training=_trains(recipe)):
        yield from _refused("rollout", lambda: recipe.rollout.entry.check(recipe.rollout))
        yield from _refused("model", lambda: check_quantize(recipe.model))
    if recipe.stages and recipe.learner.fused_kernels:
        yield from _refused("learner", lambda: check_fused_kernels(kind))
    if recipe.track.tensorboard:
        yield from _refused("track", check_tensorboard)


def _trains(recipe: Recipe) -> bool:
    return bool(recipe.stages or recipe.sft or recipe.adapt)


def memory(recipe: Recipe) -> Iterator[Finding]:
    """What a run on all GPUs of this machine takes of each, or on the host where there is none."""
    if is_served(recipe, training=_trains(recipe)):
        return
    ranks = max(1, learner_ranks(recipe, torch.cuda.device_count() or 1)[0])
    demand = memory_demand(recipe, ranks, training=_trains(recipe))
    if demand is None:
        said = f"not known: {recipe.model.path} has no configuration here"
        yield Finding("memory", "lacking", said, f"hf download {recipe.model.path}")
    elif demand.fits and demand.tight:
        yield Finding("memory", "lacking", f"takes {demand}", "leave more free: end other programs")
    elif demand.fits:
        yield Finding("memory", "good", f"takes {demand}")
    elif demand.device == "cpu" and recipe.device != "cpu":
        remedy = "rlcore plan RECIPE --gpus N --gpu-memory GiB says whether it fits GPUs"
        yield Finding("memory", "lacking", f"takes {demand}", remedy)
    else:
        yield Finding("memory", "bad", f"takes {demand}", demand.remedy)


def data(section: DataConfig, topic: str, found: list[Problem]) -> Iterator[Finding]:
    """Whether the data is there; its problems go to `found`."""
    said: list[str] = []
    found += (load_held_out if topic == "evaluate" else load_problems)(section, said.append)
    yield Finding(topic, "good", f"{len(found):,} problems of {section.path or section.source}")
    for line in said:
        yield Finding(topic, "lacking", line, "look at these rows" if ": left out " in line else "")


def _asked(recipe: Recipe, trained_on: list[Problem], problems: list[Problem], topic: str) -> Iterator[Finding]:
    """Prompts, template and rewards of one data set."""
    held_out = topic == "evaluate"
    section = recipe.held_out_conversation if held_out else recipe.conversation
    tokenizer, config = _tokenizer_and_config(recipe, trained_on)
    talk = Conversation(tokenizer, section, [tokenizer.eos_token_id])
    strict = held_out and recipe.evaluate is not None and not recipe.evaluate.data.skip_bad_rows
    yield from _refused(topic, lambda: check_model_length(talk, config))
    yield from prompts(talk, problems, topic, strict=strict)
    if not held_out or not recipe.stages:
        yield from template(talk)
    yield from references(recipe, problems, topic)


def _tokenizer_and_config(
    recipe: Recipe, trained_on: list[Problem]
) -> tuple[PreTrainedTokenizerBase, PretrainedConfig]:
    if recipe.model.scratch:
        policy = first_policy(recipe, trained_on)
        return policy.tokenizer, policy.model.config
    return load_tokenizer(recipe.model), load_config(recipe.model)


def prompts(talk: Conversation, problems: list[Problem], topic: str, *, strict: bool) -> Iterator[Finding]:
    """How long they are, and which are left out. Raises UserError where none may be."""
    lengths, said = sorted(talk.prompt_tokens(problems)), list[str]()
    fitting_problems(talk, problems, None if strict else said.append)
    middle, longest, limit = lengths[len(lengths) // 2], lengths[-1], talk.max_prompt_tokens
    spread = (
        f"{lengths[0]} to {longest} tokens, half of them up to {middle}"
        if lengths[0] < longest
        else f"{longest} tokens"
    )
    yield Finding(topic, "good", f"prompts of {spread}, of {limit}")
    for line in said:
        remedy = f"conversation.max_prompt_tokens={longest} takes them all" if longest > limit else "another kind"
        yield Finding(topic, "lacking", line.removeprefix("data: "), remedy)


def template(talk: Conversation) -> Iterator[Finding]:
    """Whether appended turns are what the chat template would write."""
    if talk.check.exact:
        yield Finding("template", "good", "appended turns are exactly what it writes")
    for difference in talk.check.differences:
        yield Finding("template", "lacking", difference, "training keeps what was sampled; a chat server may not")


def references(recipe: Recipe, problems: list[Problem], topic: str) -> Iterator[Finding]:
    """What the rewards say of the data's own answers, or of empty ones where it has none."""
    chosen = problems[:: -(-len(problems) // MOST_REFERENCES)]
    column = next((name for name in GOLD if all(isinstance(p.columns.get(name), str) for p in chosen)), None)
    texts = [str(problem.columns[column]) if column else "" for problem in chosen]
    # A bare answer does not say that it is one.
    verdicts = _verdicts(recipe, chosen + chosen, texts + [f"\\boxed{{{text}}}" for text in texts])
    pairs = zip(verdicts[: len(chosen)], verdicts[len(chosen) :], strict=True)
    judged = [boxed if plain.status == "no_answer" and column else plain for plain, boxed in pairs]
    told = ", ".join(f"{count} {status}" for status, count in Counter(v.status for v in judged).most_common())
    said = f"rewards of {len(chosen)} " + (f"references ({column}): {told}" if column else f"empty answers: {told}")
    unscored = [verdict for verdict in judged if verdict.score is None]
    missed = [problem.id for problem, verdict in zip(chosen, judged, strict=True) if verdict.status != "correct"]
    if len(unscored) == len(judged):
        yield Finding(topic, "bad", said, unscored[0].detail or "no attempt would be scored")
    elif column and missed:
        state = "bad" if len(missed) == len(chosen) else "lacking"
        named = ", ".join(missed[:NAMED]) + (", ..." if len(missed) > NAMED else "")
        yield Finding(topic, state, said, f"look at {named}: rlcore score --gold scores a file's references")
    else:
        yield Finding(topic, "good", said)


def _verdicts(recipe: Recipe, problems: list[Problem], texts: list[str]) -> list[Verdict]:
    section = recipe.rewards
    specs = [function.model_dump() for function in section.functions]
    try:
        with RewardPool(specs, workers=section.workers, deadline=section.deadline) as pool:
            return pool.score(*for_rewards([(p, (), text) for p, text in zip(problems, texts, strict=True)]))
    except RewardError as error:
        raise UserError(f"rewards: {error}") from None

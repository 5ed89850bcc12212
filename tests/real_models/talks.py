"""Two-attempt conversations of a few questions, short enough for real models on a CPU."""

from rlcore.recipe.schema import ConversationConfig
from rlcore.rollout import Conversation, RolloutEngine, Sampling, TorchEngine, sample_groups
from rlcore.types import Problem, Trajectory

QUESTIONS = ["What is 17 + 25?", "Name three primes below 20.", "Why is the sky blue? Answer in one sentence."]
ANSWER = 8
"""Tokens of an attempt, at most."""
PROBLEMS = [Problem(str(at), ({"role": "user", "content": text},), {}) for at, text in enumerate(QUESTIONS)]


def talk_of(tokenizer) -> Conversation:
    section = ConversationConfig(max_prompt_tokens=128, max_attempt_tokens=ANSWER)
    return Conversation(tokenizer, section, [tokenizer.eos_token_id])


def sampled(model, talk: Conversation, temperature: float, engine: RolloutEngine | None = None) -> list[Trajectory]:
    """One trajectory of each problem, by the embedded engine unless another is given."""
    engine = engine or TorchEngine(model, list(talk.stop_ids), slots=8, max_tokens=talk.max_tokens)
    groups = sample_groups(engine, talk, PROBLEMS, 1, Sampling(ANSWER, temperature), deadline=600)
    model.set_attn_implementation("sdpa")  # the embedded engine has one of its own
    return [trajectory for group in groups for trajectory in group]


def ids_of(trajectory: Trajectory) -> list[int]:
    """All its tokens."""
    return [token for turn in trajectory.turns for token in (*turn.prompt_ids, *turn.response_ids)]

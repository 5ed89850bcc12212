"""Attempts are sampled and scored together by real reward workers."""

import asyncio
import threading
from pathlib import Path

import pytest

from rewards import Verdict
from rlcore.errors import UserError
from rlcore.policy import load_policy, stop_ids
from rlcore.recipe import schema
from rlcore.rollout import Conversation, Sampling, Scorer, TorchEngine, sample_groups
from rlcore.rollout.episodes import verdicts
from rlcore.types import Problem, Turn

FUNCTIONS = Path(__file__).parents[1] / "rewards" / "functions.py"

REWARD = """
import os, time
def length_reward(completions, bonus):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{len(completions)}\\n")
    return [None if b is None else len(c) + b for c, b in zip(completions, bonus)]
def failing_reward(completions):
    raise ZeroDivisionError("no such luck")
"""


@pytest.fixture
def reward_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    path = tmp_path / "my_rewards.py"
    path.write_text(REWARD)
    return path


def problems() -> list[Problem]:
    return [
        Problem(str(i), ({"role": "user", "content": f"What is {i} + 1?"},), {"bonus": None if i == 3 else i})
        for i in range(4)
    ]


def rollout(scorer: Scorer, temperature: float = 1.0):
    policy = load_policy(
        schema.ModelConfig(
            scratch=schema.ScratchConfig(hidden_size=32, layers=1, intermediate_size=32, vocab_size=300)
        ),
        ["What is 1 + 1? There is an error."],
    )
    section = schema.ConversationConfig(instruction="There is an error.", max_attempt_tokens=6)
    engine = TorchEngine(policy.model, stop_ids(policy), slots=8, max_tokens=64)
    groups = sample_groups(
        engine,
        Conversation(policy.tokenizer, section, stop_ids(policy)),
        problems(),
        3,
        Sampling(6, temperature),
        deadline=60,
        judge=scorer.start,
    )
    return policy, groups


def test_every_attempt_gets_the_verdict_of_its_own_text(reward_file):
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": f"{reward_file}:length_reward"}]))
    try:
        _, scored = rollout(scorer)
    finally:
        scorer.close()
    for at, group in enumerate(scored):
        assert len(group) == 3
        for trajectory in group:
            assert trajectory.problem.id == str(at)
            for turn, verdict in zip(trajectory.turns, trajectory.verdicts, strict=True):
                assert verdict.score == (None if at == 3 else len(turn.text) + at)
                assert turn.text


def attempt_at(asked: str, said: str, *, conversational: bool) -> tuple[Problem, Turn]:
    messages = ({"role": "system", "content": "Think."}, {"role": "user", "content": asked})
    return Problem(said, messages, conversational=conversational), Turn((1,), (2,), (0.0,), "stop", said, (0,))


def judged(scorer: Scorer, *attempts: tuple[Problem, Turn]) -> list[Verdict]:
    """The verdicts on attempts that ended together."""

    async def run() -> tuple[Verdict, ...]:
        return await verdicts([scorer.start(*attempt) for attempt in attempts])

    return list(asyncio.run(run()))


@pytest.mark.parametrize("conversational", [True, False])
def test_prompts_and_completions_have_one_form_that_of_the_data(conversational):
    """Messages, as TRL's own conversational rewards read them, or texts."""
    names = ["trl.rewards:think_format_reward", f"{FUNCTIONS}:reads_messages"]
    names = names if conversational else [f"{FUNCTIONS}:reads_texts"]
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": name} for name in names], deadline=60))
    try:
        for said, full in (("<think>a</think>5", len(names)), ("<think>a", len(names) - conversational)):
            (verdict,) = judged(scorer, attempt_at("<think>a</think>5", said, conversational=conversational))
            assert verdict.score == full
    finally:
        scorer.close()


def test_equal_attempts_at_a_problem_are_judged_once(reward_file, tmp_path):
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": f"{reward_file}:length_reward"}]))
    try:
        _, scored = rollout(scorer, temperature=0)
    finally:
        scorer.close()
    texts = {(t.problem.id, turn.text) for group in scored for t in group for turn in t.turns}
    judged = sum(int(line) for line in (tmp_path / "calls").read_text().split())
    assert judged == len(texts) < 4 * 3 * 2


def test_problems_that_share_an_id_are_judged_each_by_its_own_gold(reward_file):
    """As row 17 of the training data and row 17 of the held-out data."""
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": f"{reward_file}:length_reward"}]))
    said = Turn((1,), (2,), (0.0,), "stop", "abc", (0,))
    trained, held_out = (Problem("17", ({"role": "user", "content": "?"},), {"bonus": bonus}) for bonus in (1, 5))
    try:
        verdicts = judged(scorer, (trained, said), (held_out, said), (trained, said))
    finally:
        scorer.close()
    assert [verdict.score for verdict in verdicts] == [4, 8, 4]


def test_an_attempt_is_sent_though_no_chunk_is_full_and_none_forgets_what_another_waits_for(reward_file):
    """Two event loops in two threads at once, as an evaluation while training conversations go on."""
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": f"{reward_file}:length_reward"}]))
    found: dict[int, list[float | None]] = {}

    def ask(bonus: int) -> None:
        for number in range(20):
            attempt = (
                Problem(f"{bonus}", ({"role": "user", "content": "?"},), {"bonus": bonus}),
                Turn((1,), (number,), (0.0,), "stop", "abc", (0,)),
            )
            found.setdefault(bonus, []).extend(verdict.score for verdict in judged(scorer, attempt))

    threads = [threading.Thread(target=ask, args=(bonus,)) for bonus in (1, 2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        scorer.close()
    assert found == {1: [4.0] * 20, 2: [5.0] * 20}


def test_turns_hold_every_token_once_and_in_order(reward_file):
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": f"{reward_file}:length_reward"}]))
    try:
        policy, groups = rollout(scorer)
    finally:
        scorer.close()
    for group in groups:
        for trajectory in group:
            first, second = trajectory.turns
            assert len(first.logprobs) == len(first.response_ids) <= 6
            assert first.finish == ("stop" if first.response_ids[-1] in stop_ids(policy) else "length")
            rendered = policy.tokenizer.decode(trajectory.ids)
            assert rendered.index(trajectory.problem.messages[0]["content"]) < rendered.index("There is an error.")
            assert trajectory.ids[-len(second.response_ids) :] == list(second.response_ids)


def test_a_reward_that_fails_leaves_attempts_unscored_with_its_reason(reward_file):
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": f"{reward_file}:failing_reward"}]))
    try:
        _, groups = rollout(scorer)
        verdicts = [v for group in groups for t in group for v in t.verdicts]
    finally:
        scorer.close()
    assert {v.score for v in verdicts} == {None}
    assert all("no such luck" in v.detail for v in verdicts)


def test_a_reward_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"^rewards: .*mth.*math"):
        Scorer(schema.RewardsConfig(functions=[{"name": "mth"}]))


def test_a_column_that_the_data_lack_is_named(reward_file):
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": "pair_sum"}]))
    try:
        with pytest.raises(UserError, match="numbers"):
            rollout(scorer)
    finally:
        scorer.close()


def test_a_penalty_for_length_lowers_the_score_and_leaves_the_mark(tmp_path):
    """DAPO's overlong shaping beside a reward for content: what it reads are the tokens that were sampled."""
    (tmp_path / "content.py").write_text("def right(completions):\n    return [1.0 for _ in completions]\n")
    overlong = {"name": "overlong", "kwargs": {"max_length": 6, "buffer": 4}}
    scorer = Scorer(schema.RewardsConfig(functions=[{"name": f"{tmp_path}/content.py:right"}, overlong]))
    try:
        scored = rollout(scorer)[1]
    finally:
        scorer.close()
    trajectories = [trajectory for group in scored for trajectory in group]
    for trajectory in trajectories:
        lengths = [len(turn.response_ids) for turn in trajectory.turns]
        assert trajectory.rewards_A.tolist() == [1 - max(length - 2, 0) / 4 for length in lengths]
        assert trajectory.marks_A.tolist() == [1, 1]
    assert min(trajectory.rewards_A.min() for trajectory in trajectories) == 0

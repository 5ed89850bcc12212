"""Conversation kinds: who says what after what, that every token stays as it was sampled, and that slots are freed."""

import asyncio
from pathlib import Path

import pytest

from rewards import RewardPool
from rlcore.errors import UserError
from rlcore.kinds import feedback, verify
from rlcore.kinds.instructions import INSTRUCTIONS
from rlcore.kinds.stop import read_role
from rlcore.kinds.verify import read_verdict
from rlcore.policy import Policy, stop_ids
from rlcore.policy.scratch import scratch_model
from rlcore.recipe import schema
from rlcore.rollout import Sampling, TorchEngine, sample_groups
from tests.rollout.scripted import ScriptedEngine, ScriptedScorer, conversation, problem

RIGHT, WRONG = "It is 5. Verdict: right", "It is not. Verdict: wrong"
STORIES = {
    "correct": (3, ["4", "5", "5"], ["attempt"] * 3, ["Check it."] * 2),
    "critique": (
        3,
        ["4", "2 + 3 is not 4", "5", "fine", "5"],
        ["attempt", "critique", "attempt", "critique", "attempt"],
        ["Review it.", "Check it."] * 2,
    ),
    "verify": (
        3,
        ["4", WRONG, "5", RIGHT],
        ["attempt", "verdict", "attempt", "verdict"],
        ["Review it.", "Check it.", "Review it."],
    ),
    "verify, used up": (2, ["4", WRONG, "5"], ["attempt", "verdict", "attempt"], ["Review it.", "Check it."]),
    "verify, unreadable": (2, ["4", "who knows"], ["attempt", "verdict"], ["Review it."]),
    "stop": (4, ["4", "5", "STOP."], ["attempt", "attempt", "stop"], ["Review it."] * 2),
    "stop, used up": (3, ["4", "5", "6"], ["attempt"] * 3, ["Review it."] * 2),
}


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("cut", [False, True], ids=["ended", "truncated"])
def test_a_kind_tells_its_story_in_exact_tokens(name, cut):
    attempts, replies, roles, messages = STORIES[name]
    talk = conversation(kind=name.split(",")[0], attempts=attempts)
    engine = ScriptedEngine(talk.tokenizer, lambda key, turn, text: replies[turn], cut=cut)
    heard = []
    judge = ScriptedScorer(lambda problem, text: heard.append(text)).start
    ((trajectory,),) = sample_groups(engine, talk, [problem()], 1, Sampling(50), deadline=60, judge=judge)
    assert [turn.role for turn in trajectory.turns] == roles
    assert [turn.text for turn in trajectory.turns] == replies
    assert heard == [reply for reply, role in zip(replies, roles, strict=True) if role == "attempt"]
    assert not engine.open, "a conversation that has ended keeps its slot"
    # Every request is what came before it, token by token, and what a template renders of it all in the end.
    for turn, asked in enumerate(engine.asked[0]):
        before = [i for t in trajectory.turns[:turn] for i in (*t.prompt_ids, *t.response_ids)]
        assert list(asked) == before + list(trajectory.turns[turn].prompt_ids)
    chat = [*problem().messages]
    for reply, message in zip(replies, messages, strict=False):
        chat += [{"role": "assistant", "content": reply}, {"role": "user", "content": message}]
    rendered = talk.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert talk.tokenizer.decode(list(engine.asked[0][-1])) == rendered
    assert len(trajectory.ids) <= talk.max_tokens


def test_what_the_policy_says_of_its_attempts():
    assert [read_verdict(text) for text in (RIGHT, WRONG, f"{WRONG}\n**Verdict:** Right", "right", "")] == [
        True, False, True, None, None,
    ]  # fmt: skip
    accepted = ("STOP", " stop.\n", "'Stop'", "**STOP**", "STOP!", "<think>Is it 5? Yes.</think>\nSTOP")
    assert {read_role(text) for text in accepted} == {"stop"}
    assert {read_role(text) for text in ("STOP it is 5", "", "<think>STOP</think> 5")} == {"attempt"}


def test_score_s_own_instructions_have_names():
    assert conversation(instruction="score_math").script.instruction == INSTRUCTIONS["score_math"]
    assert conversation(instruction="Or this.").script.instruction == "Or this."


PROGRAMS = {"wrong": "def f(x):\n    return x", "right": "def f(x):\n    return 2 * x"}
FUNCTIONS = Path(__file__).parents[1] / "rewards" / "functions.py"


def test_feedback_runs_public_tests_and_shows_no_others():
    talk = conversation(kind="feedback", attempts=3)
    engine = ScriptedEngine(talk.tokenizer, lambda key, turn, text: PROGRAMS["wrong" if turn == 0 else "right"])
    coding = problem(public_tests=["assert f(3) == 6"], test_list=["assert f(3) == 6", "assert f(5) == 1010101"])
    ((trajectory,),) = sample_groups(engine, talk, [coding], 1, Sampling(50), deadline=60)
    assert [turn.text for turn in trajectory.turns] == [PROGRAMS["wrong"], PROGRAMS["right"]]
    message = talk.tokenizer.decode(list(trajectory.turns[1].prompt_ids))
    assert "0 of 1 tests passed; f(3) gave 3" in message
    assert message.rstrip().count("Check it.") == 1
    assert "1010101" not in message
    assert not engine.open
    assert set(feedback.public_columns(coding)) == {"test_list"}
    assert feedback.public_columns(coding)["test_list"] == ["assert f(3) == 6"]


def test_feedback_needs_public_tests():
    with pytest.raises(UserError, match="problem 1 has no public tests"):
        asyncio.run(feedback.run_public_tests(problem(test_list=["assert f(3) == 6"]), ""))
    with pytest.raises(UserError, match="problem 1: the tests cannot be read"):
        asyncio.run(feedback.run_public_tests(problem(public_tests=["assert ("]), "x = 1"))


def test_public_tests_that_cannot_be_run_for_once_leave_the_conversation_and_the_run_alone(monkeypatch):
    """The judge passes its deadline, as on a busy machine."""
    talk = conversation(kind="feedback", attempts=3)
    engine = ScriptedEngine(talk.tokenizer, lambda key, turn, text: "hang" if turn == 0 else "right")
    with RewardPool([{"name": f"{FUNCTIONS}:by_text"}], workers=1, deadline=0.5) as pool:
        monkeypatch.setattr(feedback, "_pool", lambda: pool)
        coding = problem(public_tests=["assert f(3) == 6"])
        ((trajectory,),) = sample_groups(engine, talk, [coding], 1, Sampling(50), deadline=60)
    assert [turn.text for turn in trajectory.turns] == ["hang", "right"]
    message = talk.tokenizer.decode(list(trajectory.turns[1].prompt_ids))
    assert "The public tests could not be run: timeout\nCheck it." in message


def test_a_long_message_is_cut_to_the_room_that_was_set_aside():
    talk = conversation(kind="feedback")
    message = "what went wrong: " + "x y z " * 5000 + "Check it."
    ids = talk.follow("stop", message)
    assert talk.tokenizer.decode(list(ids)).count("Check it.") == 1
    assert talk.max_prompt_tokens + 2 * 1024 + len(ids) <= talk.max_tokens


@pytest.mark.parametrize("kind", ["correct", "critique", "verify", "stop"])
def test_the_embedded_engine_samples_every_kind_token_by_token(kind, monkeypatch):
    """A random model decides what is said, so its claims and stops are read from the number of letters."""
    monkeypatch.setattr(verify, "read_verdict", lambda text: len(text) % 3 == 0)
    monkeypatch.setattr("rlcore.kinds.stop.read_role", lambda text: "stop" if len(text) % 3 == 0 else "attempt")
    talk = conversation(kind=kind, attempts=3, max_attempt_tokens=6)
    model = scratch_model(schema.ScratchConfig(hidden_size=32, layers=1, heads=2, kv_heads=1), talk.tokenizer, 0)
    ends = stop_ids(Policy(model, talk.tokenizer))
    sampling = Sampling(6, temperature=1.5, seed=1)

    def trajectories(slots: int):
        engine = TorchEngine(model, ends, slots=slots, max_tokens=talk.max_tokens)
        return sample_groups(engine, talk, [problem()] * 4, 4, sampling, deadline=60)

    groups = trajectories(slots=3)  # fewer than conversations: a slot that is not freed would never come back
    flat = [trajectory for group in groups for trajectory in group]
    lengths = {len(trajectory.turns) for trajectory in flat}
    assert lengths == {"correct": {3}, "critique": {5}}.get(kind, lengths)
    assert kind in ("correct", "critique") or len(lengths) > 1
    assert all(len(trajectory.ids) <= talk.max_tokens for trajectory in flat)
    check_log_probabilities(model, flat, sampling.temperature)


def check_log_probabilities(model, trajectories, temperature):
    """The engine's, through its cache and in whatever slots, against one pass over each whole conversation."""
    import torch

    for trajectory in trajectories:
        with torch.no_grad():
            logits = model(torch.tensor([trajectory.ids])).logits[0] / temperature
        log_p, at = logits.log_softmax(-1), 0
        for turn in trajectory.turns:
            at += len(turn.prompt_ids)
            for token, logprob in zip(turn.response_ids, turn.logprobs, strict=True):
                assert log_p[at - 1, token].item() == pytest.approx(logprob, abs=1e-4)
                at += 1

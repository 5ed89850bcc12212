"""Warm starts: what demonstrations teach, in the shares that the mixture says, and a policy that loads."""

import json
from itertools import combinations

import pytest

from rlcore.cli import main
from rlcore.data import load_problems
from rlcore.data.sources.arithmetic import phrases
from rlcore.policy import load_policy, phrase_tokenizer
from rlcore.recipe import schema
from rlcore.rollout import Conversation
from rlcore.sft.demonstrations import demonstrations
from rlcore.sft.schema import Mixture, Phase
from rlcore.sft.trainer import IGNORED

INSTRUCTION = "Please check and answer again."


@pytest.fixture(scope="module")
def rows():
    """3,000 conversations, as (first text, second text, what is learned of the first, right answers)."""
    problems = load_problems(schema.DataConfig(source="arithmetic", options={"count": 500}))
    tokenizer = phrase_tokenizer([*phrases(4, 12), f" {INSTRUCTION}"])
    talk = Conversation(tokenizer, schema.ConversationConfig(instruction=INSTRUCTION), [tokenizer.eos_token_id])
    mixture = Mixture(right_first=0.5, learn_first=0.3, keep_right=0.8, keep_wrong=0.3, fix=0.4)
    phase = Phase(name="x", attempts=2, steps=1, lr=1e-3, mixture=mixture)
    asked = {problem.messages[0]["content"]: problem for problem in problems}
    read = []
    for row in demonstrations(problems, talk, phase, 3000, seed=0):
        ids, labels = row["input_ids"], row["labels"]
        assert tokenizer.unk_token_id not in ids
        question, first, check, second = [
            part.partition("|> ")[2] for part in tokenizer.decode(ids).split("<|end|>") if part
        ]
        assert check == INSTRUCTION
        problem = asked[question]
        numbers, target = json.loads(problem.columns["numbers"]), problem.columns["target"]
        right = {f"{x} and {y}" for x, y in combinations(numbers, 2) if numbers[x] + numbers[y] == target}
        learned = "".join(tokenizer.decode([label for label in labels if label != IGNORED]).split("<|end|>")[0])
        read.append((first, second, learned.strip(), right))
        assert labels[-10:] == ids[-10:], "all of attempt 2 is learned"
    return read


def choice(text: str) -> str:
    return text.partition(":")[0]


def share(flags) -> float:
    flags = list(flags)
    return sum(flags) / len(flags)


def test_attempts_are_right_kept_and_mended_in_the_shares_asked_for(rows):
    was_right = [(choice(first) in right, first, second, right) for first, second, _, right in rows]
    assert share(right for right, *_ in was_right) == pytest.approx(0.5, abs=0.03)
    assert share(a == b for ok, a, b, _ in was_right if ok) == pytest.approx(0.8, abs=0.03)
    assert share(a == b for ok, a, b, _ in was_right if not ok) == pytest.approx(0.3, abs=0.03)
    changed = [choice(b) in right for ok, a, b, right in was_right if not ok and a != b]
    assert share(changed) == pytest.approx(0.4, abs=0.04)


def test_wrong_choices_are_never_learned_but_their_checks_are(rows):
    for first, _, learned, right in rows:
        assert first.endswith(learned)
        assert learned.partition(":")[2] == first.partition(":")[2]
        if choice(first) not in right:
            assert choice(learned) == ""
    learned_right = [choice(learned) != "" for first, _, learned, right in rows if choice(first) in right]
    assert share(learned_right) == pytest.approx(0.3, abs=0.03)


def test_the_command_makes_a_policy_that_loads_and_answers(tmp_path, repository, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)  # a user's shell has none, and accelerate takes it for torchrun's
    main(["sft", str(repository / "recipes/quickstart_base.yaml"), f"output={tmp_path / 'base'}", "batch=8",
          "data.options.count=2000", "phases.0.steps=2", "phases.1.steps=2", "phases.2.steps=2"])  # fmt: skip
    policy = load_policy(schema.ModelConfig(path=str(tmp_path / "base")))
    assert policy.tokenizer.unk_token_id not in policy.tokenizer(" b and c: 8 + 5 = 13")["input_ids"]
    assert policy.model.num_parameters() < 500_000

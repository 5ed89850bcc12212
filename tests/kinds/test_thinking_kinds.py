"""Kinds that spend more at the moment of the question: gates, iteration, and the diagram of propositions."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from rewards import Verdict
from rlcore.credit import Turns, turn_returns
from rlcore.data import load_problems
from rlcore.evaluate.measure import trajectory_record, trajectory_rows
from rlcore.kinds import diagram, think
from rlcore.recipe.schema import ConversationConfig, DataConfig, StageConfig
from rlcore.rollout import Sampling, sample_groups
from rlcore.types import Problem, Trajectory, Turn
from tests.rollout.scripted import ScriptedEngine, conversation, problem

PAIRS = Path(__file__).parents[2] / "recipes" / "test_time" / "pairs_kinds.py"
RIGHT, WRONG = "Verdict: right", "Verdict: wrong"


def converse(kind: str, attempts: int, replies: list[str], asked: Problem | None = None, **section):
    """The trajectory of one conversation with these replies, and the message before each reply after the first."""
    talk = conversation(kind=kind, attempts=attempts, **section)
    engine = ScriptedEngine(talk.tokenizer, lambda key, turn, text: replies[turn])
    ((trajectory,),) = sample_groups(engine, talk, [asked or problem()], 1, Sampling(50), deadline=60)
    assert not engine.open, "a conversation that has ended keeps its slot"
    assert [turn.text for turn in trajectory.turns] == replies
    said = [talk.tokenizer.decode(list(turn.prompt_ids), skip_special_tokens=True) for turn in trajectory.turns[1:]]
    return trajectory, [text.removeprefix("\nuser\n").removesuffix("\nassistant\n").strip() for text in said]


def test_iteration_puts_its_own_words_before_the_next_attempt_until_it_stops():
    replies = ["4", "<think>hm</think>\nCount again.", "5", "<think>It is right.</think>\n\n**STOP**"]
    trajectory, messages = converse("iterate", 4, replies)
    assert [turn.role for turn in trajectory.turns] == ["attempt", "critique", "attempt", "stop"]
    assert messages == ["Review it.", "Count again.\n\nCheck it.", "Review it."]
    trajectory, messages = converse("iterate_guided", 3, ["4", "STOP", "5", "STOP", "6"])
    assert [turn.role for turn in trajectory.turns] == ["attempt", "critique", "attempt", "critique", "attempt"]
    assert messages == ["Review it.", "STOP\n\nCheck it."] * 2


def test_an_iteration_of_ones_own_stops_by_what_it_wrote_to_itself():
    check = "There might be an error. Please check and answer again."
    sums = ["a and b: 1 + 2 < 4", "b and c: 1 + 2 < 4", "b and d: 2 + 2 = 4"]
    trajectory, messages = converse(f"{PAIRS}:ITERATE", 4, [*sums, sums[2]], review=None)
    assert [turn.role for turn in trajectory.turns] == ["attempt", "critique", "attempt", "stop"]
    assert messages == [check, f"{sums[1]}\n\nCheck it.", check]


def test_a_diagram_uses_only_the_propositions_found_valid():
    replies = ["4", "no", WRONG, "5", "yes", RIGHT, "6", "fine", RIGHT, "5"]
    trajectory, messages = converse("diagram", 4, replies)
    assert [turn.role for turn in trajectory.turns] == ["attempt", "critique", "verdict"] * 3 + ["attempt"]
    assert [turn.claim for turn in trajectory.turns if turn.role == "verdict"] == [False, True, True]
    assert messages[0] == "Review it."
    assert messages[2] == messages[5] == "Check it."
    assert messages[-1] == diagram.summary_of([2, 3])
    assert diagram.summary_of([2, 3]).startswith("Solutions 2 and 3 above were found right.")
    assert diagram.summary_of([1]).startswith("Solution 1 above was found right.")
    assert diagram.summary_of([]).startswith("None of the solutions above")
    assert len(trajectory.ids) <= conversation(kind="diagram", attempts=4).max_tokens


def test_a_diagram_of_ones_own_reads_verdicts_and_sums_up_in_its_own_words():
    kind = f"{PAIRS}:DIAGRAM"
    replies = ["a and b: 1 + 2 < 4", "b and c: 2 + 2 = 4", "a and b: 1 + 2 < 4", "b and c: 2 + 2 = 4", "fine", "= > ="]
    trajectory, messages = converse(kind, 3, [*replies, "b and c: 2 + 2 = 4"])
    assert [turn.claim for turn in trajectory.turns if turn.role == "verdict"] == [False, True]
    check = "There might be an error. Please check and answer again."
    assert messages == ["Review it.", check, "Check it.", "Review it.", check, f"{check} 2"]
    trajectory, messages = converse(kind, 2, ["4", "no", "no sum", "5"])
    assert trajectory.turns[2].claim is None
    assert messages[-1] == check


def test_each_role_of_a_diagram_has_its_own_credit():
    """Propositions 0, 1; the first verdict agrees with its score, the second does not; the summary is right."""
    trajectory, _ = converse("diagram", 3, ["4", "no", WRONG, "5", "bad", WRONG, "5"])
    scored = replace(trajectory, verdicts=tuple(judged(attempt.text == "5") for attempt in trajectory.attempts))
    stage = StageConfig(name="II", steps=1, reward=[1, 2, 3], bonus=10, kl=[0, 0, 0])
    # the critic earns what the verifier after it earns: w of the attempt that the verdict leads to, for being right
    assert turn_returns(Turns.of_groups([[scored]]), stage)[0, 0].tolist() == [0, 2, 2, 12, 0, 0, 3]
    rows = trajectory_rows([scored], ConversationConfig(kind="diagram", attempts=3))
    assert rows["verdict_right"].tolist() == [0.5]


def judged(right: bool) -> Verdict:
    return Verdict(float(right), "correct" if right else "wrong")


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("Solve x = 3y.", True),
        ("What is 12 - 5?", True),
        (r"Find \frac{a}{b}.", True),
        ("Ann has 3 apples and buys 4.", True),
        ("Who wrote Faust and/or its part 2?", False),
        ("Which well-known river runs through Paris?", False),
    ],
)
def test_the_gate_of_symbols(text, gate):
    asked = Problem("p", ({"role": "user", "content": text},))
    _, messages = converse("think_if_symbols", 2, ["look", "thought"][: 1 + gate], asked)
    assert messages == ["Review it."] * gate


def test_the_gate_of_symbols_reads_the_problem_without_what_the_recipe_says_around_it(tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"prompt": "Who wrote Faust?"}\n{"prompt": "Add 3 to 4."}\n')
    prompt = "{prompt}\nPut the answer in \\boxed{}, in 1 to 3 words."
    words, sum_ = load_problems(DataConfig(source="jsonl", path=str(tmp_path / "asked.jsonl"), prompt=prompt))
    assert not think.has_symbols(words, turn(1))
    assert think.has_symbols(sum_, turn(1))


def test_the_gate_of_doubt_looks_at_the_least_likely_token():
    def look(*probabilities: float) -> Turn:
        return Turn((1,), (2,) * len(probabilities), tuple(map(math.log, probabilities)), "stop", "", ())

    assert think.is_unsure(problem(), look(0.9, 0.4, 0.9))
    assert not think.is_unsure(problem(), look(0.9, 0.6))
    assert think.is_unsure(problem(), look())
    # the scripted engine's tokens all have log-probability -0.5: 0.61 each
    assert len(converse("think_if_unsure", 2, ["look"])[0].turns) == 1


def turn(tokens: int, role: str = "attempt") -> Turn:
    return Turn((1,), (2,) * tokens, (0.0,) * tokens, "stop", "", (0,) * tokens, role)


def test_a_gate_is_right_where_it_goes_on_from_wrong_and_stays_with_right():
    section = ConversationConfig(kind="think_if_unsure", attempts=2)
    right, wrong = judged(True), judged(False)
    talks = [
        Trajectory(problem(), (turn(3),), (right,)),
        Trajectory(problem(), (turn(3),), (wrong,)),
        Trajectory(problem(), (turn(3), turn(9)), (wrong, right)),
        Trajectory(problem(), (turn(3), turn(9)), (right, right)),
    ]
    rows = trajectory_rows(talks, section)
    assert rows["gate_right"].tolist() == [1, 0, 1, 0]
    assert rows["spent_t1"].tolist() == [3, 3, 3, 3]
    assert rows["spent_t2"].tolist() == [3, 3, 12, 12]


def test_tokens_spent_count_what_is_said_between_attempts():
    said = (turn(3), turn(5, "critique"), turn(2), turn(1, "stop"))
    talk = Trajectory(problem(), said, (judged(False),) * 2)
    rows = trajectory_rows([talk], ConversationConfig(kind="iterate", attempts=3))
    assert [rows[f"spent_t{a}"].tolist() for a in (1, 2, 3)] == [[3], [10], [11]]
    assert [each["tokens"] for each in trajectory_record(talk, step=0, stage="")["between"]] == [5, 1]
